//! The control side of Ingress: route, endpoint, datapath and store servers, alone and together.
#[cfg(test)]
mod build;
#[cfg(test)]
mod endpoint;
#[cfg(test)]
mod gateway;
#[cfg(test)]
mod gateway_build;
#[cfg(test)]
mod gateway_feature;
#[cfg(test)]
mod gateway_filter;
#[cfg(test)]
mod gateway_l4;
#[cfg(test)]
mod gateway_model;
#[cfg(test)]
mod gateway_policy;
#[cfg(test)]
mod gateway_route;
#[cfg(test)]
mod ingress;
#[cfg(test)]
mod pipeline;
#[cfg(test)]
mod store;
#[cfg(test)]
mod tls;
