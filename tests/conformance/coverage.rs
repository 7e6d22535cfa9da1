//! That every feature name and every published test has a scenario.
use std::collections::BTreeSet;

/// The features of v1.6.1 that do not need a mesh.
const FEATURES: &str = "\
    BackendTLSPolicy BackendTLSPolicySANValidation Gateway GatewayPort8080 GatewayStaticAddresses \
    GatewayHTTPListenerIsolation GatewayHTTPSListenerDetectMisdirectedRequests GatewayInfrastructurePropagation \
    GatewayAddressEmpty GatewayBackendClientCertificate GatewayFrontendClientCertificateValidation \
    GatewayFrontendClientCertificateValidationInsecureFallback ListenerSet GRPCRoute GRPCRouteNamedRouteRule \
    HTTPRoute HTTPRouteDestinationPortMatching HTTPRouteBackendRequestHeaderModification \
    HTTPRouteQueryParamMatching HTTPRouteMethodMatching HTTPRouteResponseHeaderModification \
    HTTPRoutePortRedirect HTTPRouteSchemeRedirect HTTPRoutePathRedirect HTTPRouteHostRewrite \
    HTTPRoutePathRewrite HTTPRouteRequestMirror HTTPRouteRequestMultipleMirrors \
    HTTPRouteRequestPercentageMirror HTTPRouteRequestTimeout HTTPRouteBackendTimeout HTTPRouteParentRefPort \
    HTTPRouteBackendProtocolH2C HTTPRouteBackendProtocolWebSocket HTTPRouteNamedRouteRule HTTPRouteCORS \
    HTTPRoute303RedirectStatusCode HTTPRoute307RedirectStatusCode HTTPRoute308RedirectStatusCode HTTPRouteRetry \
    HTTPRouteRetryBackendTimeout HTTPRouteRetryConnectionError ReferenceGrant TCPRoute TLSRoute \
    TLSRouteModeTerminate TLSRouteModeMixed UDPRoute";

/// How many tests v1.6.1 publishes that do not need a mesh; `published.txt` has their names.
const PUBLISHED: usize = 131;

pub(crate) fn features() -> impl Iterator<Item = &'static str> {
    FEATURES.split(' ').filter(|name| !name.is_empty())
}

#[test]
fn every_feature_and_every_published_test_has_a_scenario() {
    let scenarios: Vec<_> =
        crate::AREAS.iter().flat_map(|file| crate::language::read(file)).collect();
    let mut names = BTreeSet::new();
    for scenario in &scenarios {
        assert!(names.insert(&*scenario.test), "{} is there twice", scenario.test);
        let checks = |step: &&crate::Step| {
            !matches!(step.what, crate::What::Apply(_) | crate::What::Delete { .. })
        };
        assert!(
            scenario.steps.iter().any(|step| checks(&step)),
            "{} checks nothing",
            scenario.test
        );
    }
    let covered: BTreeSet<&str> =
        scenarios.iter().flat_map(|it| it.features.iter().map(|name| &**name)).collect();
    let known: BTreeSet<&str> = features().collect();
    assert_eq!(covered, known, "features of scenarios, and features there are");
    let published: BTreeSet<&str> = include_str!("published.txt").lines().collect();
    assert_eq!(published.len(), PUBLISHED);
    let missing: Vec<_> = published.difference(&names).collect();
    assert!(missing.is_empty(), "no scenario for {missing:?}");
}
