use super::{Kernel, Message, Time};

/// The world outside the kernel: the clock and whatever makes tasks and sockets go on.
pub trait Driver {
    /// The monotonic clock.
    fn now(&self) -> Time;

    /// Runs the tasks that are ready. Returns true if some are ready still.
    fn run_tasks(&mut self) -> bool;

    /// Waits for input, at most until `deadline` (forever if none); `now` or earlier means: only look.
    fn wait(&mut self, deadline: Option<Time>);

    /// Whether the program has been told to end.
    fn stopped(&self) -> bool;
}

/// The event loop: mail, tasks, input, until the driver says that it is over.
pub fn run<M: Message>(kernel: &mut Kernel<M>, driver: &mut dyn Driver) {
    while !driver.stopped() {
        let next = kernel.step(driver.now());
        let busy = driver.run_tasks() || kernel.has_mail();
        driver.wait(if busy { Some(Time::ZERO) } else { next });
    }
}
