//! The driver of a Kubernetes API server: reads everything of [`WATCHED`], and carries out writes.
//!
//! [`WATCHED`]: crate::api::cluster::WATCHED
mod follow;
mod net;

use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use smol::Task;

use follow::{Facts, follow_all};
use net::LoopNet;

use super::event_loop::spawn;
use crate::api::cluster::{ClusterWrite, ClusterWritten, Verb};
use crate::api::config::{Config, Kubernetes};
use crate::api::meta::NamespacedName;
use crate::api::{Message, wiring};
use crate::kernel::{Mailer, Outbox, Server, ServerId, Time};
use crate::kube_lite::http::Request;
use crate::kube_lite::json::Json;
use crate::kube_lite::{Client, Error, kubeconfig};
use crate::proto::value::{parse_yaml, split_documents, to_json_compact};

/// Writes under way at once. They wait for each other on the server anyway.
const WRITES_AT_ONCE: usize = 2;

/// The driver.
pub struct Cluster {
    facts: Rc<Facts>,
    /// None: the kubeconfig, which was good at the start, is not any more.
    client: Option<Rc<Client>>,
    mailer: Mailer<Message>,
    lease: NamespacedName,
    reading: Option<Task<()>>,
    /// Writes that wait, and how many are under way.
    waiting: VecDeque<Arc<ClusterWrite>>,
    writing: Vec<(u64, Task<()>)>,
}

/// What a kubeconfig says, or the file system of a pod.
///
/// # Errors
/// A sentence that names the file.
pub fn configuration(source: &Kubernetes) -> Result<kubeconfig::Config, String> {
    let path = match source {
        Kubernetes::InCluster => {
            let env = |name: &str| std::env::var(name).ok();
            return kubeconfig::Config::in_cluster(&env).map_err(|error| error.0);
        }
        Kubernetes::Kubeconfig(path) => path,
    };
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("the kubeconfig {shown} cannot be read: {error}"))?;
    let document = split_documents(&text).into_iter().next();
    let value = match document.map(parse_yaml) {
        Some(Ok(Some(value))) => value,
        Some(Err(error)) => {
            let at = error.mark;
            return Err(format!("{shown}:{}:{}: {}", at.line, at.column, error.message));
        }
        _ => return Err(format!("the kubeconfig {shown} is empty")),
    };
    let json = to_json_compact(&value);
    let json = Json::check(&json).ok_or_else(|| format!("{shown}: not a kubeconfig"))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    kubeconfig::Config::from_kubeconfig(json, folder)
        .map_err(|error| format!("{shown}: {}", error.0))
}

// === impl Cluster ===

impl Cluster {
    /// `mailer` must be that of [`wiring::CLUSTER`].
    pub fn new(config: &Config, mailer: Mailer<Message>) -> Self {
        let net = Rc::new(LoopNet { nameservers: config.nameservers.clone() });
        let agent = concat!("pilus/", env!("CARGO_PKG_VERSION")).to_owned();
        let server = config.kubernetes.as_ref().map(configuration);
        let server = server.transpose().inspect_err(|error| log::error!("{error}")).ok().flatten();
        Self {
            facts: Rc::new(Facts::new(mailer.clone())),
            client: server.map(|server| Rc::new(Client::new(server, net, agent))),
            mailer,
            lease: config.writer_lease(),
            reading: None,
            waiting: VecDeque::new(),
            writing: Vec::new(),
        }
    }

    fn read(&mut self) {
        let Some(client) = &self.client else { return };
        let (client, facts) = (Rc::clone(client), Rc::clone(&self.facts));
        self.reading = Some(spawn(follow_all(client, facts, self.lease.clone())));
    }

    fn write_next(&mut self) {
        self.writing.retain(|(_, task)| !task.is_finished());
        while self.writing.len() < WRITES_AT_ONCE
            && let Some(client) = &self.client
            && let Some(write) = self.waiting.pop_front()
        {
            let (client, mailer) = (Rc::clone(client), self.mailer.clone());
            let task = spawn(carry_out(client, mailer, Arc::clone(&write)));
            self.writing.push((write.id, task));
        }
    }
}

impl Server<Message> for Cluster {
    fn start(&mut self, _now: Time, _out: &mut Outbox<Message>) {
        self.read();
    }

    fn handle(&mut self, _now: Time, _from: ServerId, message: Message, out: &mut Outbox<Message>) {
        match message {
            Message::FactsTaken => self.facts.taken(),
            Message::Write(write) => {
                self.waiting.push_back(write);
                self.write_next();
            }
            // From a task of ours.
            Message::Written(written) => {
                self.writing.retain(|(id, _)| *id != written.id);
                out.send(wiring::PUBLISH, Message::Written(written));
                self.write_next();
            }
            _ => {}
        }
    }

    fn peer_restarted(&mut self, _now: Time, peer: ServerId, _out: &mut Outbox<Message>) {
        if peer == wiring::KUBE {
            // It knows nothing: all is read anew.
            self.facts = Rc::new(Facts::new(self.mailer.clone()));
            self.read();
        }
        if peer == wiring::PUBLISH {
            self.waiting.clear();
        }
    }
}

async fn carry_out(client: Rc<Client>, mailer: Mailer<Message>, write: Arc<ClusterWrite>) {
    let (method, content_type) = match write.verb {
        Verb::Create => ("POST", "application/json"),
        Verb::Replace => ("PUT", "application/json"),
        // YAML is what this type is called; JSON is YAML.
        Verb::Apply => ("PATCH", "application/apply-patch+yaml"),
        Verb::Merge => ("PATCH", "application/merge-patch+json"),
        Verb::Delete => ("DELETE", "application/json"),
    };
    let body = (!write.body.is_empty()).then(|| (content_type, write.body.to_string()));
    let request = Request { method, path: write.path.to_string(), accept: None, body };
    let outcome = match client.request(&request).await {
        Ok(body) => Ok(body.into()),
        Err(Error::Refused(status)) => Err((status.code, status.message.into())),
        Err(error) => Err((0, error.to_string().into())),
    };
    mailer.send(
        wiring::CLUSTER,
        Message::Written(Arc::new(ClusterWritten { id: write.id, outcome })),
    );
}
