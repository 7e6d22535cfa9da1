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

/// How often [`settle`] calls the servers. What is left then is done by the loop.
const SETTLING_STEPS: usize = 64;

/// Lets the servers do all that can be done without input, before the loop begins.
pub fn settle<M: Message>(kernel: &mut Kernel<M>, driver: &dyn Driver) {
    for _ in 0..SETTLING_STEPS {
        let now = driver.now();
        let more = kernel.step(now).is_some_and(|next| next <= now);
        if !more && !kernel.has_mail() {
            break;
        }
    }
}

/// The event loop: mail, tasks, input, until the driver says that it is over.
pub fn run<M: Message>(kernel: &mut Kernel<M>, driver: &mut dyn Driver) {
    while !driver.stopped() {
        let next = kernel.step(driver.now());
        let busy = driver.run_tasks() || kernel.has_mail();
        driver.wait(if busy { Some(Time::ZERO) } else { next });
    }
}
