//! The service server: frontends, backends and how they are reached, rule by rule.
#[cfg(test)]
mod backends;
#[cfg(test)]
mod frontends;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod scale;
