//! Which routes are in effect here: those that the proxy has taken over and, unless there are none, the hooks too.
use std::net::SocketAddr;
use std::sync::Arc;

use super::DatapathServer;
use crate::api::address::{Generation, Port};
use crate::api::datapath::{Steer, Transport};
use crate::api::meta::NamespacedName;
use crate::api::route::Serving;
use crate::api::{Message, wiring};
use crate::arrange::Arrange;
use crate::kernel::Outbox;

/// A place that is not served, and why.
type Failed = (NamespacedName, Port, Transport, String);

// === impl DatapathServer ===

impl DatapathServer {
    /// Tells the route server if what is in effect has changed.
    pub(super) fn report_serving(&mut self, out: &mut Outbox<Message>) {
        let Some(serving) = self.serving() else { return };
        if serving != *self.serving {
            self.serving = Arc::new(serving);
            out.send(wiring::ROUTE, Message::Serving(Arc::clone(&self.serving)));
        }
    }

    /// None as long as nothing new has been acknowledged by everybody.
    fn serving(&self) -> Option<Serving> {
        let (table, (generation, faults)) = (self.listeners.as_ref()?, self.listening.as_ref()?);
        // Acknowledgements of older tables say nothing that has not been said; a restarted proxy says so itself.
        if *generation != table.generation {
            return None;
        }
        let mut failed: Vec<Failed> = Vec::new();
        if !self.no_bpf {
            self.hooks_hold(table.routes)?;
            failed.extend(self.failed_in_hooks());
        }
        for clash in &self.clashes {
            failed.push(place(&clash.listener, &clash.problem.message));
        }
        failed.extend(self.failed_in_proxy(faults));
        failed.arrange();
        failed.dedup();
        Some(Serving { routes: table.routes, failed })
    }

    /// Whether the hooks have acknowledged a program that goes with these routes.
    fn hooks_hold(&self, routes: Generation) -> Option<()> {
        let (programmed, _) = self.acknowledged.as_ref()?;
        let program = self.program.as_ref()?;
        (programmed.generation == program.generation && self.program_routes == routes).then_some(())
    }

    /// Places that the hooks have complained about, or have not been asked to steer because their address may not be
    /// used here.
    fn failed_in_hooks(&self) -> Vec<Failed> {
        let (Some((programmed, _)), Some(program)) = (&self.acknowledged, &self.program) else {
            return Vec::new();
        };
        let mut failed = Vec::new();
        for (service, places) in &self.places {
            for &(address, port, transport) in places {
                let steer = Steer { address, port, transport };
                let names = |text: &&String| super::names(text, address);
                if let Some(why) = programmed.failures.iter().find(names) {
                    failed.push((service.clone(), port, transport, why.clone()));
                } else if program.steers.binary_search(&steer).is_err() {
                    let why = format!("{address} is not one of the addresses that are announced");
                    failed.push((service.clone(), port, transport, why));
                }
            }
        }
        failed
    }

    /// The proxy's complaints are sentences; those that name a port of the node are about that one, others about all.
    fn failed_in_proxy(&self, faults: &[String]) -> Vec<Failed> {
        let listeners = self.listeners.iter().flat_map(|table| &table.all);
        let concerned = |why: &&String, port: Port| named_port(why).is_none_or(|it| it == port.0);
        let mut failed = Vec::new();
        for listener in listeners {
            let port = listener.host_port.filter(|_| self.no_bpf).unwrap_or(listener.port);
            if let Some(why) = faults.iter().find(|why| concerned(why, port)) {
                failed.push(place(listener, why));
            }
        }
        failed
    }
}

fn place(listener: &crate::api::route::Listener, why: &str) -> Failed {
    let transport = listener.protocol.transport();
    (listener.service.clone(), listener.port, transport, why.to_owned())
}

/// The port in `port 80: …` or `… 0.0.0.0:80, …`.
fn named_port(text: &str) -> Option<u16> {
    let number = text.strip_prefix("port ").and_then(|rest| rest.split_once(':'));
    number.and_then(|(number, _)| number.parse().ok()).or_else(|| {
        let words = text.split_whitespace().map(|word| word.trim_end_matches(','));
        words.filter_map(|word| word.parse::<SocketAddr>().ok()).map(|it| it.port()).next()
    })
}
