//! The loop's outside: smol's executor for tasks, the reactor for input, the clock.
use std::cell::Cell;
use std::future::Future;

use smol::{LocalExecutor, Task};

use super::{clock, reactor};
use crate::kernel::{Driver, Time};

/// How many times a task is polled before the servers get their turn again.
const POLLS_PER_TURN: usize = 512;

thread_local! {
    static EXECUTOR: &'static LocalExecutor<'static> = Box::leak(Box::new(LocalExecutor::new()));
    static STOPPED: Cell<bool> = const { Cell::new(false) };
}

/// Starts a task on this thread's loop. Dropping the handle cancels it; `detach` lets it go on. A panic
/// ends that task only.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    EXECUTOR.with(|executor| executor.spawn(future))
}

/// Ends this thread's loop after the current turn.
pub fn stop() {
    STOPPED.with(|stopped| stopped.set(true));
}

/// The driver of [`crate::kernel::run`] in production.
#[derive(Debug, Default)]
pub struct EventLoop;

impl Driver for EventLoop {
    fn now(&self) -> Time {
        clock::now()
    }

    fn run_tasks(&mut self) -> bool {
        EXECUTOR.with(|executor| (0..POLLS_PER_TURN).all(|_| executor.try_tick()))
    }

    fn wait(&mut self, deadline: Option<Time>) {
        // A task of this very turn may have ended the loop: nothing is waited for then.
        let deadline = if self.stopped() { Some(Time::ZERO) } else { deadline };
        reactor::wait(clock::now(), deadline);
    }

    fn stopped(&self) -> bool {
        STOPPED.with(Cell::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::reactor::{AsyncFd, Timer};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;
    use std::time::Duration;

    fn run_until(done: &Cell<bool>) {
        let mut driver = EventLoop;
        while !done.get() {
            let busy = driver.run_tasks();
            driver.wait(busy.then_some(Time::ZERO));
        }
    }

    #[test]
    fn a_task_waits_for_input_and_for_time_and_a_panicking_one_dies_alone() {
        let (mut near, far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let done = Rc::new(Cell::new(false));
        let flag = Rc::clone(&done);
        spawn(async { panic!("on purpose") }).detach();
        spawn(async move {
            let fd = AsyncFd::new(far.try_clone().unwrap().into()).unwrap();
            let mut bytes = [0; 8];
            fd.readable().await;
            assert_eq!((&far).read(&mut bytes).unwrap(), 5);
            fd.clear_readable();
            Timer::at(clock::now() + Duration::from_millis(2)).await;
            flag.set(true);
        })
        .detach();
        spawn(async move { near.write_all(b"hello").unwrap() }).detach();
        run_until(&done);
    }
}
