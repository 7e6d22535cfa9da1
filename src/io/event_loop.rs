//! The loop's outside: smol's executor for tasks, the reactor for input, the clock.
use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use smol::{LocalExecutor, Task};

use super::{clock, reactor};
use crate::kernel::{Driver, Time};

/// How many times tasks of servers are polled before connections get their turn: a flood on the LAN must
/// not stop the proxy.
const SERVER_POLLS_PER_TURN: usize = 64;
/// How many times connections are polled before the servers get their turn again.
const CONNECTION_POLLS_PER_TURN: usize = 512;
/// And how long. What one poll costs differs a thousandfold (a TLS handshake is a signature, some
/// milliseconds on a small machine), and a node whose adverts are 300 ms late loses its addresses.
const CONNECTION_TIME_PER_TURN: Duration = Duration::from_millis(5);
/// How many polls go by between two looks at the clock, which are not free.
const POLLS_PER_LOOK: usize = 4;

thread_local! {
    static SERVERS: &'static LocalExecutor<'static> = Box::leak(Box::new(LocalExecutor::new()));
    static CONNECTIONS: &'static LocalExecutor<'static> =
        Box::leak(Box::new(LocalExecutor::new()));
    static STOPPED: Cell<bool> = const { Cell::new(false) };
}

/// Starts a task of a server on this thread's loop: it never waits behind connections. Dropping the handle
/// cancels it; `detach` lets it go on. A panic ends that task only.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    SERVERS.with(|executor| executor.spawn(future))
}

/// Like [`spawn`], for what clients from outside can make as many of, and as busy, as they like.
pub fn spawn_connection<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    CONNECTIONS.with(|executor| executor.spawn(future))
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
        let servers =
            SERVERS.with(|executor| (0..SERVER_POLLS_PER_TURN).all(|_| executor.try_tick()));
        let connections = CONNECTIONS.with(|executor| run_connections(executor));
        servers || connections
    }

    fn wait(&mut self, deadline: Option<Time>) {
        // A task may have stopped the loop in this very turn: nothing would wake it again.
        let deadline = if self.stopped() { Some(Time::ZERO) } else { deadline };
        reactor::wait(clock::now(), deadline);
    }

    fn stopped(&self) -> bool {
        STOPPED.with(Cell::get)
    }
}

/// Runs connections for one turn. Returns true if some are ready still.
fn run_connections(executor: &LocalExecutor<'_>) -> bool {
    let mut until = None;
    for _ in 0..CONNECTION_POLLS_PER_TURN / POLLS_PER_LOOK {
        if !(0..POLLS_PER_LOOK).all(|_| executor.try_tick()) {
            return false;
        }
        // A turn of a few polls, the usual one, does without the clock.
        let now = clock::now();
        if now >= *until.get_or_insert(now + CONNECTION_TIME_PER_TURN) {
            break;
        }
    }
    true
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
        loop {
            let busy = driver.run_tasks();
            if done.get() {
                break;
            }
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

    /// A connection that keeps the processor for at least `cost` whenever it is polled, for ever.
    async fn greedy(cost: Duration, polls: Rc<Cell<usize>>) {
        loop {
            polls.set(polls.get() + 1);
            let until = clock::now() + cost;
            while clock::now() < until {}
            smol::future::yield_now().await;
        }
    }

    #[test]
    fn a_thousand_costly_connections_do_not_keep_servers_from_their_turn() {
        let polls = Rc::new(Cell::new(0));
        for _ in 0..1000 {
            spawn_connection(greedy(Duration::from_millis(1), Rc::clone(&polls))).detach();
        }
        assert!(EventLoop.run_tasks());
        // Each poll takes at least a millisecond, so there is room for this many, and never for more.
        let most = POLLS_PER_LOOK + 5 + POLLS_PER_LOOK;
        assert!((POLLS_PER_LOOK..=most).contains(&polls.get()), "{} polls", polls.get());
    }

    #[test]
    fn a_servers_task_does_not_wait_behind_connections() {
        let polls = Rc::new(Cell::new(0));
        for _ in 0..10_000 {
            spawn_connection(greedy(Duration::ZERO, Rc::clone(&polls))).detach();
        }
        let seen = Rc::new(Cell::new(None));
        let (seen_by_task, polls_until_now) = (Rc::clone(&seen), Rc::clone(&polls));
        assert!(EventLoop.run_tasks());
        let before = polls.get();
        assert!(before <= CONNECTION_POLLS_PER_TURN);
        spawn(async move { seen_by_task.set(Some(polls_until_now.get())) }).detach();
        EventLoop.run_tasks();
        assert_eq!(seen.get(), Some(before));
    }

    #[test]
    fn busy_tasks_of_servers_do_not_starve_connections() {
        let (servers, connections) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        spawn(greedy(Duration::ZERO, Rc::clone(&servers))).detach();
        spawn_connection(greedy(Duration::ZERO, Rc::clone(&connections))).detach();
        assert!(EventLoop.run_tasks());
        assert_eq!(servers.get(), SERVER_POLLS_PER_TURN);
        assert!(connections.get() >= POLLS_PER_LOOK);
    }
}
