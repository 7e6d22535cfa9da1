//! Carries out what a [`Reflector`] decides.
use super::client::{Client, Lines};
use super::error::Error;
use super::http::Request;
use super::json::Json;
use super::reflector::{Reflector, Step, Told};

/// What is reported of a collection.
#[derive(Clone, Copy, Debug)]
pub enum Change<'t> {
    /// It is read from the beginning: what is not [`Change::Put`] until [`Change::Complete`] is not there any more.
    Listing,
    /// This object is there.
    Put(Json<'t>),
    /// This object is gone.
    Gone(Json<'t>),
    /// All of the list was put.
    Complete,
    /// It could not be read, and will be tried again.
    Failed(&'t Error),
    /// It can be read (again).
    Works,
}

/// Follows a collection until the server says that there is no such thing, which it returns.
pub async fn follow(
    client: &Client,
    reflector: &mut Reflector,
    tell: &mut dyn FnMut(Change<'_>),
) -> Error {
    loop {
        let outcome = match reflector.step(client.net().random()) {
            Step::Wait(time) => {
                client.net().sleep(time).await;
                Ok(())
            }
            Step::List(path, first) => list(client, reflector, path, first, tell).await,
            Step::Watch(path) => watch(client, reflector, path, tell).await,
        };
        if let Err(error) = outcome {
            if error.code() == Some(404) {
                return error;
            }
            // That all is to be listed again is a part of watching.
            if !matches!(&error, Error::Refused(status) if status.is_expired()) {
                tell(Change::Failed(&error));
            }
            reflector.failed(&error, client.net().random());
        }
    }
}

fn request(reflector: &Reflector, path: String) -> Request {
    Request { accept: reflector.accept(), ..Request::get(path) }
}

async fn list(
    client: &Client,
    reflector: &mut Reflector,
    path: String,
    first: bool,
    tell: &mut dyn FnMut(Change<'_>),
) -> Result<(), Error> {
    let body = client.request(&request(reflector, path)).await?;
    let list = Json::check(&body).ok_or_else(|| Error::Broken("a list is not JSON".to_owned()))?;
    let last = reflector.listed(list)?;
    if first {
        tell(Change::Listing);
    }
    let items = list.get("items").into_iter().flat_map(Json::items);
    items.for_each(|item| tell(Change::Put(item)));
    if last {
        tell(Change::Complete);
        tell(Change::Works);
    }
    Ok(())
}

async fn watch(
    client: &Client,
    reflector: &mut Reflector,
    path: String,
    tell: &mut dyn FnMut(Change<'_>),
) -> Result<(), Error> {
    let began = client.net().now();
    let mut answer = client.open(&request(reflector, path)).await?;
    tell(Change::Works);
    let mut lines = Lines::default();
    while client.next_line(&mut answer, &mut lines).await? {
        let line = lines.current()?;
        if line.trim().is_empty() {
            continue;
        }
        let event =
            Json::check(line).ok_or_else(|| Error::Broken("an event is not JSON".to_owned()))?;
        match reflector.watched(event)? {
            Told::Put(object) => tell(Change::Put(object)),
            Told::Gone(object) => tell(Change::Gone(object)),
            Told::Nothing => {}
        }
    }
    reflector.ended(client.net().now().saturating_sub(began), client.net().random());
    Ok(())
}
