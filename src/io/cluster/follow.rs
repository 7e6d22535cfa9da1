//! The tasks that read from an API server: what is served, and each kind of it.
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smol::Task;

use crate::api::cluster::{Fact, MANAGED_BY, WATCHED, Watched};
use crate::api::meta::{Kind, NamespacedName, Str};
use crate::api::{Message, wiring};
use crate::io::event_loop::spawn;
use crate::kernel::Mailer;
use crate::kube_lite::json::Json;
use crate::kube_lite::{
    Backoff, Change, Client, Error, Reflector, Resource, Selection, Served, discover, follow,
};

/// A burst of changed CRDs is waited for: they come a dozen at a time.
const CRDS_SETTLE: Duration = Duration::from_millis(200);
/// Without a word about CRDs (they may be forbidden to us) what is served is asked for again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// What was read and not handed over yet. The kube server has one batch at a time: while it is busy, news gathers here.
pub(super) struct Facts {
    mailer: Mailer<Message>,
    waiting: RefCell<Vec<Fact>>,
    is_busy: Cell<bool>,
}

// === impl Facts ===

impl Facts {
    pub(super) fn new(mailer: Mailer<Message>) -> Self {
        Self { mailer, waiting: RefCell::default(), is_busy: Cell::new(false) }
    }

    /// Takes a fact in; [`Facts::hand_over`] sends it on.
    fn add(&self, fact: Fact) {
        let mut waiting = self.waiting.borrow_mut();
        if let Fact::Listing(kind) = fact {
            // A list makes what was said before of its kind pointless: what gathers is bounded by what there is.
            waiting.retain(|fact| kind_of(fact) != Some(kind));
        }
        waiting.push(fact);
    }

    /// Sends what has gathered, unless the last batch is still being taken in.
    pub(super) fn hand_over(&self) {
        let mut waiting = self.waiting.borrow_mut();
        if self.is_busy.get() || waiting.is_empty() {
            return;
        }
        let batch: Arc<[Fact]> = waiting.drain(..).collect();
        drop(waiting);
        if self.mailer.send(wiring::KUBE, Message::Facts(Arc::clone(&batch))) {
            self.is_busy.set(true);
        } else {
            self.waiting.borrow_mut().splice(0..0, batch.iter().cloned());
        }
    }

    /// The last batch has been taken in.
    pub(super) fn taken(&self) {
        self.is_busy.set(false);
        self.hand_over();
    }

    fn tell(&self, fact: Fact) {
        self.add(fact);
        self.hand_over();
    }
}

/// The kind whose objects a fact is about.
fn kind_of(fact: &Fact) -> Option<Kind> {
    match fact {
        Fact::Listing(kind) | Fact::Put(kind, _) | Fact::Gone(kind, _) | Fact::Complete(kind) => {
            Some(*kind)
        }
        Fact::Served(..) | Fact::Trouble(..) | Fact::Lease(_) => None,
    }
}

/// Follows everything that is served, for ever. `lease` is the name of the writer's Lease.
pub(super) async fn follow_all(client: Rc<Client>, facts: Rc<Facts>, lease: NamespacedName) {
    let changed = Rc::new(Cell::new(true));
    let _lease = spawn(follow_lease(Rc::clone(&client), Rc::clone(&facts), lease.clone()));
    let _made = spawn(follow_made_leases(
        Rc::clone(&client),
        Rc::clone(&facts),
        lease.namespace.to_string(),
    ));
    let _crds = spawn(follow_crds(Rc::clone(&client), Rc::clone(&changed)));
    let mut tasks: HashMap<Kind, (Str, Task<()>)> = HashMap::new();
    let mut said: BTreeMap<Kind, Result<Str, Str>> = BTreeMap::new();
    let mut backoff = Backoff::default();
    let groups: Vec<&str> = WATCHED.iter().map(|watched| watched.group).collect();
    loop {
        changed.set(false);
        let served = match discover(&client, &groups).await {
            Ok(served) => served,
            Err(error) => {
                let trouble = Some(error.to_string().into());
                facts.tell(Fact::Trouble(Kind::Namespace, trouble));
                client.net().sleep(backoff.next(client.net().random())).await;
                continue;
            }
        };
        backoff.reset();
        for watched in &WATCHED {
            let version = version_of(watched, &served);
            if said.get(&watched.kind) == Some(&version)
                && tasks.contains_key(&watched.kind) == version.is_ok()
            {
                continue;
            }
            facts.add(Fact::Served(watched.kind, version.clone()));
            said.insert(watched.kind, version.clone());
            tasks.remove(&watched.kind);
            match version {
                Ok(version) => {
                    let (client, facts) = (Rc::clone(&client), Rc::clone(&facts));
                    let changed = Rc::clone(&changed);
                    let task =
                        spawn(follow_kind(client, facts, *watched, Str::clone(&version), changed));
                    tasks.insert(watched.kind, (version, task));
                }
                // What was there is not there any more.
                Err(_) => {
                    facts.add(Fact::Listing(watched.kind));
                    facts.add(Fact::Complete(watched.kind));
                }
            }
        }
        facts.hand_over();
        let mut waited = Duration::ZERO;
        while waited < LOOK_AGAIN && !changed.get() {
            client.net().sleep(CRDS_SETTLE).await;
            waited += CRDS_SETTLE;
        }
        tasks.retain(|_, (_, task)| !task.is_finished());
    }
}

/// `GROUP/VERSION` in which a kind is read, or why it is not.
fn version_of(watched: &Watched, served: &Served) -> Result<Str, Str> {
    let Watched { group, plural, versions, kind, .. } = watched;
    if group.is_empty() {
        return Ok("v1".into());
    }
    match served.version(group, plural, versions) {
        Some(version) => Ok(format!("{group}/{version}").into()),
        None => Err(match served.versions(group, plural) {
            [] => format!("{kind} is not served: there is no {plural}.{group}"),
            others => format!(
                "{kind} is served as {}, and understood as {}",
                others.join(", "),
                versions.join(", ")
            ),
        }
        .into()),
    }
}

async fn follow_kind(
    client: Rc<Client>,
    facts: Rc<Facts>,
    watched: Watched,
    version: Str,
    changed: Rc<Cell<bool>>,
) {
    let kind = watched.kind;
    let version = version.rsplit('/').next().unwrap_or_default().to_owned();
    let resource = Resource { group: watched.group, version, plural: watched.plural };
    let field_selector = Some(watched.field_selector).filter(|s| !s.is_empty()).map(str::to_owned);
    let selection = Selection { field_selector, ..Selection::default() };
    let mut reflector = Reflector::new(resource, selection);
    let mut in_trouble = false;
    follow(&client, &mut reflector, &mut |change| {
        let fact = match change {
            Change::Listing => Fact::Listing(kind),
            Change::Put(json) => Fact::Put(kind, json.text().into()),
            Change::Gone(json) => match name_of(json) {
                Some(name) => Fact::Gone(kind, name),
                None => return,
            },
            Change::Complete => Fact::Complete(kind),
            Change::Failed(error) => {
                in_trouble = true;
                Fact::Trouble(kind, Some(error.to_string().into()))
            }
            Change::Works if in_trouble => {
                in_trouble = false;
                Fact::Trouble(kind, None)
            }
            Change::Works => return,
        };
        // Of a list all at once.
        let is_part_of_list = matches!(fact, Fact::Listing(_));
        facts.add(fact);
        if !is_part_of_list {
            facts.hand_over();
        }
    })
    .await;
    // There is no such thing any more: what there is instead is for discovery to say.
    changed.set(true);
}

fn name_of(object: Json<'_>) -> Option<NamespacedName> {
    let text = |key| object.at(&["metadata", key]).and_then(Json::string);
    let namespace = text("namespace").unwrap_or_default();
    Some(NamespacedName::new(&namespace, &text("name")?))
}

/// Notes each change of the CRDs. That they cannot be read is no trouble: then it is seen later.
async fn follow_crds(client: Rc<Client>, changed: Rc<Cell<bool>>) {
    let resource = Resource {
        group: "apiextensions.k8s.io",
        version: "v1".to_owned(),
        plural: "customresourcedefinitions",
    };
    let selection = Selection { metadata_only: true, ..Selection::default() };
    let mut reflector = Reflector::new(resource, selection);
    let mut is_listed = false;
    follow(&client, &mut reflector, &mut |change| match change {
        Change::Complete => {
            // What was there at the beginning, discovery has seen.
            changed.set(changed.get() || is_listed);
            is_listed = true;
        }
        Change::Put(_) | Change::Gone(_) if is_listed => changed.set(true),
        _ => {}
    })
    .await;
}

/// Follows the Leases that the agents make: who announces what.
async fn follow_made_leases(client: Rc<Client>, facts: Rc<Facts>, namespace: String) {
    let resource =
        Resource { group: "coordination.k8s.io", version: "v1".to_owned(), plural: "leases" };
    let (label, value) = MANAGED_BY;
    let selection = Selection {
        namespace: Some(namespace),
        label_selector: Some(format!("{label}={value}")),
        ..Selection::default()
    };
    let mut reflector = Reflector::new(resource, selection);
    follow(&client, &mut reflector, &mut |change| match change {
        Change::Listing => facts.add(Fact::Listing(Kind::Lease)),
        Change::Put(json) => facts.tell(Fact::Put(Kind::Lease, json.text().into())),
        Change::Gone(json) => {
            if let Some(name) = name_of(json) {
                facts.tell(Fact::Gone(Kind::Lease, name));
            }
        }
        Change::Complete => facts.tell(Fact::Complete(Kind::Lease)),
        // The other watch of Leases says what is wrong.
        Change::Failed(_) | Change::Works => {}
    })
    .await;
}

/// Follows the one Lease by which the writer is elected.
async fn follow_lease(client: Rc<Client>, facts: Rc<Facts>, name: NamespacedName) {
    let resource =
        Resource { group: "coordination.k8s.io", version: "v1".to_owned(), plural: "leases" };
    let selection = Selection {
        namespace: Some(name.namespace.to_string()),
        field_selector: Some(format!("metadata.name={}", name.name)),
        ..Selection::default()
    };
    let mut reflector = Reflector::new(resource, selection);
    let mut found = false;
    let gone: Error = follow(&client, &mut reflector, &mut |change| match change {
        Change::Listing => found = false,
        Change::Put(json) => {
            found = true;
            facts.tell(Fact::Lease(Some(json.text().into())));
        }
        Change::Complete if !found => facts.tell(Fact::Lease(None)),
        Change::Gone(_) => facts.tell(Fact::Lease(None)),
        Change::Failed(error) => {
            facts.tell(Fact::Trouble(Kind::Lease, Some(error.to_string().into())));
        }
        _ => {}
    })
    .await;
    facts.tell(Fact::Trouble(Kind::Lease, Some(gone.to_string().into())));
}
