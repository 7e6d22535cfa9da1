//! Gateways, listeners and ListenerSets (spec 5.2, 5.3, 5.9).
use pilus::api::class::GATEWAY_NAME_LABEL;
use pilus::api::datapath::Transport;
use pilus::api::meta::Kind;
use pilus::api::object::gateway::{
    FromNamespaces, FrontendValidation, Gateway, GatewayAddress, GatewayListener,
};
use pilus::api::object::{Namespace, PortProtocol};
use pilus::api::objects::Objects;
use pilus::api::selector::{LabelSelector, Requirement};

use crate::build::*;
use crate::gateway_build::*;

const GOOD: &str = "Accepted Programmed ResolvedRefs Conflicted";
const HTTP: &str = "[HTTPRoute GRPCRoute]";

/// The state with the Gateway `infra/gw` and whatever `more` adds.
fn with(gateway: Gateway, more: impl FnOnce(&mut Objects)) -> Router {
    let mut objects = cluster();
    put(&mut objects.gateways, gateway);
    more(&mut objects);
    Router::gateway(objects)
}

fn gw(listeners: &[GatewayListener]) -> Gateway {
    gateway("infra/gw", listeners)
}

#[test]
fn a_class_of_ours_says_what_is_supported() {
    let mut objects = cluster();
    let mut ciliums = gateway_class();
    ciliums.meta = meta("cilium");
    ciliums.controller = "io.cilium/gateway-controller".into();
    put(&mut objects.gateway_classes, ciliums);
    let mut parameters = gateway_class();
    parameters.meta = meta("parameters");
    parameters.parameters = Some(object("", "ConfigMap", "x/y"));
    put(&mut objects.gateway_classes, parameters);
    let mut strange = gateway_class();
    strange.meta = meta("strange");
    strange.controller = "example.com/other".into();
    put(&mut objects.gateway_classes, strange);
    let router = Router::gateway(objects);
    let kind = Kind::GatewayClass;
    assert_eq!(router.conditions(kind, "pilus"), "Accepted SupportedVersion");
    assert_eq!(router.conditions(kind, "cilium"), "Accepted SupportedVersion");
    let refused = "Accepted=False/InvalidParameters SupportedVersion";
    assert_eq!(router.conditions(kind, "parameters"), refused);
    assert!(router.status(kind, "strange").is_none(), "only the class's controller writes");
    let status = router.api_status(kind, "pilus");
    assert_eq!(status.observed_generation, 3);
    let features = &status.supported_features;
    assert!(features.is_sorted());
    assert_eq!(features.len(), 48, "58 features, 10 of them for meshes");
    assert!(features.iter().all(|name| !name.starts_with("Mesh")));
}

#[test]
fn whose_a_gateway_is() {
    for (class, ours) in [("pilus", true), ("cilium", true), ("strange", false), ("piluss", false)]
    {
        let gateway = Gateway { class: class.into(), ..gw(&[on("http 80 HTTP")]) };
        let mut objects = cluster();
        objects.gateway_classes = Default::default();
        put(&mut objects.gateways, gateway);
        let router = Router::gateway(objects);
        assert_eq!(router.status(Kind::Gateway, "infra/gw").is_some(), ours, "{class}");
        assert_eq!(router.table.listeners.len(), usize::from(ours));
        let misspelt: &[&str] = if class == "piluss" {
            &["W infra/gw spec.gatewayClassName..did you mean"]
        } else {
            &[]
        };
        router.complains(misspelt);
    }
}

#[test]
fn a_gateway_gets_a_service_an_address_and_its_status() {
    let mut gateway = gw(&[on("http 80 HTTP"), on("dns 53 UDP"), on("more 80 HTTP a.com")]);
    gateway.infrastructure_labels = labels(&[("l", "1")]);
    gateway.infrastructure_annotations = labels(&[("lbipam.cilium.io/sharing-key", "k")]);
    let router = with(gateway, |_| {});
    let service = router.generated("infra/pilus-gateway-gw").unwrap();
    let label = |key: &str| service.meta.labels.get(key).map(|value| &**value);
    assert_eq!(label(GATEWAY_NAME_LABEL), Some("gw"));
    assert_eq!(label("l"), Some("1"));
    assert_eq!(label("service.kubernetes.io/service-proxy-name"), Some("pilus"));
    assert_eq!(service.meta.annotation("lbipam.cilium.io/sharing-key"), Some("k"));
    let ports: Vec<_> = service.ports.iter().map(|p| (&*p.name, p.port, p.protocol)).collect();
    let expected = [("http-80", 80, PortProtocol::Tcp), ("udp-53", 53, PortProtocol::Udp)];
    assert_eq!(ports, expected);
    assert!(service.meta.json.contains(r#""kind":"Gateway","name":"gw""#), "{}", service.meta.json);
    assert!(service.meta.json.contains(r#""port":53,"protocol":"UDP""#));

    assert_eq!(router.conditions(Kind::Gateway, "infra/gw"), "Accepted Programmed");
    let status = router.api_status(Kind::Gateway, "infra/gw");
    assert_eq!(status.observed_generation, 7);
    assert_eq!(status.addresses, [("IPAddress".into(), "10.0.0.1".into())]);
    let expected = [
        format!("http {HTTP} 0: {GOOD}"),
        format!("dns [UDPRoute] 0: {GOOD}"),
        format!("more {HTTP} 0: {GOOD}"),
    ];
    assert_eq!(router.listeners(Kind::Gateway, "infra/gw"), expected);
    let table: Vec<_> =
        router.table.listeners.iter().map(|l| (l.port.0, l.protocol.transport())).collect();
    assert_eq!(table, [(53, Transport::Udp), (80, Transport::Tcp)]);
}

#[test]
fn names_are_cut_to_what_services_may_have() {
    let long = "g".repeat(253);
    let router = with(gateway(&format!("infra/{long}"), &[on("http 80 HTTP")]), |objects| {
        put(&mut objects.gateways, gateway("infra/a.b", &[on("http 80 HTTP")]));
        put(&mut objects.gateways, gateway("infra/a-b", &[on("http 80 HTTP")]));
        let dotted = ingress("infra/x.y").note("loadbalancer-mode", "dedicated");
        put(&mut objects.ingresses, dotted.rule("h", &[("/", 'P', "a:80")]).0);
    });
    let names = router.services();
    assert_eq!(names.len(), 4);
    for service in &router.statuses.generated.services {
        let name = &service.meta.name.name;
        assert!(name.len() <= 63 && !name.contains('.'), "{name}");
        let label = service.meta.labels.get(GATEWAY_NAME_LABEL);
        assert!(label.is_none_or(|label| label.len() <= 63));
    }
    let unique: std::collections::HashSet<_> = names.iter().collect();
    assert_eq!(unique.len(), 4, "a.b and a-b are two");
}

#[test]
fn programmed_comes_from_effects() {
    let mut objects = cluster();
    put(&mut objects.gateways, gw(&[on("http 80 HTTP")]));
    let mut router = Router::new(config());
    router.objects(objects.clone());
    let conditions = |router: &Router| {
        let listener = router.listeners(Kind::Gateway, "infra/gw").remove(0);
        let (_, listener) = listener.split_once(": ").unwrap();
        (router.conditions(Kind::Gateway, "infra/gw"), listener.to_owned())
    };
    let waiting = "Accepted Programmed=False/Pending ResolvedRefs Conflicted".to_owned();
    let unassigned = "Accepted Programmed=False/AddressNotAssigned".to_owned();
    assert_eq!(conditions(&router), (unassigned, waiting.clone()));
    router.assign("infra/pilus-gateway-gw", &["10.0.0.1"]);
    let pending = "Accepted Programmed=False/Pending".to_owned();
    assert_eq!(conditions(&router), (pending.clone(), waiting.clone()));
    router.serving(1, &[]);
    let good = ("Accepted Programmed".to_owned(), GOOD.to_owned());
    assert_eq!(conditions(&router), good);
    // A new route makes a new table, which does not take back what is said about the listener.
    put(&mut objects.http_routes, http("infra/r", &["gw"]).rule(&[], &["a:80"]));
    router.objects(objects.clone());
    assert_eq!(router.table.generation.0, 2);
    assert_eq!(conditions(&router), good);
    // A new version of the Gateway is programmed when its own table is.
    let mut newer = gw(&[on("http 80 HTTP a.com")]);
    newer.meta.generation = 8;
    put(&mut objects.gateways, newer);
    router.objects(objects);
    assert_eq!(conditions(&router), (pending.clone(), waiting.clone()));
    router.serving(2, &[]);
    assert_eq!(conditions(&router), (pending.clone(), waiting.clone()));
    router.serving(4, &[]);
    assert_eq!(conditions(&router), (pending.clone(), waiting.clone()), "from before a restart");
    router.serving(3, &[80]);
    assert_eq!(conditions(&router), (pending, waiting));
    router.serving(3, &[]);
    assert_eq!(conditions(&router), good);
}

// --- 5.3, row by row ---

#[test]
fn unsupported_protocol() {
    let strange = "x [] 0: Accepted=False/UnsupportedProtocol Programmed=False/Invalid ResolvedRefs Conflicted";
    let router = with(gw(&[on("x 1111 INVALID")]), |_| {});
    assert_eq!(router.listeners(Kind::Gateway, "infra/gw"), [strange]);
    let none = "Accepted=False/ListenersNotValid Programmed=False/Invalid";
    assert_eq!(router.conditions(Kind::Gateway, "infra/gw"), none);
    let router = with(gw(&[on("x 1111 INVALID"), on("http 80 HTTP")]), |_| {});
    assert_eq!(router.listeners(Kind::Gateway, "infra/gw")[0], strange);
    let some = "Accepted=True/ListenersNotValid Programmed";
    assert_eq!(router.conditions(Kind::Gateway, "infra/gw"), some);
}

#[test]
fn kinds_that_do_not_fit_the_protocol() {
    let kinds = |kinds: &[(&str, &str)], text: &str| GatewayListener {
        allowed_kinds: kinds.iter().map(|&(group, kind)| (group.into(), kind.into())).collect(),
        ..on(text)
    };
    let router = with(
        gw(&[
            kinds(&[(GROUP, "HTTPRoute"), (GROUP, "TCPRoute")], "some 80 HTTP a.com"),
            kinds(&[(GROUP, "InvalidRoute")], "none 80 HTTP b.com"),
            kinds(&[("example.com", "HTTPRoute")], "group 80 HTTP c.com"),
        ]),
        |_| {},
    );
    let wrong = "ResolvedRefs=False/InvalidRouteKinds Conflicted";
    let expected = [
        format!("some [HTTPRoute] 0: Accepted Programmed {wrong}"),
        format!("none [] 0: Accepted Programmed=False/Invalid {wrong}"),
        format!("group [] 0: Accepted Programmed=False/Invalid {wrong}"),
    ];
    assert_eq!(router.listeners(Kind::Gateway, "infra/gw"), expected);
}

#[test]
fn certificates_that_cannot_be_used_or_are_not_permitted() {
    let (chain, key) = certificate(&["a.com"], 2025, 2030);
    let state = |secret: &str, more: &dyn Fn(&mut Objects)| {
        let router = with(gw(&[with_tls("https 443 HTTPS", &[secret])]), |objects| {
            put(&mut objects.secrets, crate::build::secret("infra/good", &chain, &key));
            put(&mut objects.secrets, crate::build::secret("infra/bad", "not PEM", &key));
            put(&mut objects.secrets, crate::build::secret("other/good", &chain, &key));
            more(objects);
        });
        let gateway = router.conditions(Kind::Gateway, "infra/gw");
        (router.listeners(Kind::Gateway, "infra/gw").remove(0), gateway)
    };
    let good = (format!("https {HTTP} 0: {GOOD}"), "Accepted Programmed".to_owned());
    let bad = |reason: &str| {
        let listener = format!(
            "https {HTTP} 0: Accepted Programmed=False/Invalid ResolvedRefs=False/{reason} Conflicted"
        );
        (listener, "Accepted Programmed=False/Invalid".to_owned())
    };
    assert_eq!(state("good", &|_| {}), good);
    assert_eq!(state("missing", &|_| {}), bad("InvalidCertificateRef"));
    assert_eq!(state("bad", &|_| {}), bad("InvalidCertificateRef"));
    assert_eq!(state("other/good", &|_| {}), bad("RefNotPermitted"));
    for (namespace, from, to, granted) in [
        ("other", "infra Gateway", "Secret", true),
        ("other", "infra Gateway", "Secret good", true),
        ("other", "infra Gateway", "Secret another", false),
        ("other", "infra Gateway", "ConfigMap", false),
        ("other", "infra HTTPRoute", "Secret", false),
        ("other", "infra ListenerSet", "Secret", false),
        ("other", "elsewhere Gateway", "Secret", false),
        ("infra", "infra Gateway", "Secret", false),
    ] {
        let permit =
            |objects: &mut Objects| put(&mut objects.reference_grants, grant(namespace, from, to));
        let expected = if granted { good.clone() } else { bad("RefNotPermitted") };
        assert_eq!(state("other/good", &permit), expected, "{namespace} {from} {to}");
    }
    // Wrong kind, and no reference at all.
    let mut listener = with_tls("https 443 HTTPS", &["good"]);
    listener.tls.as_mut().unwrap().certificates[0] = object("", "ConfigMap", "good");
    let router = with(gw(&[listener.clone()]), |_| {});
    assert_eq!(router.listeners(Kind::Gateway, "infra/gw")[0], bad("InvalidCertificateRef").0);
    listener.tls = None;
    let router = with(gw(&[listener]), |_| {});
    assert_eq!(router.listeners(Kind::Gateway, "infra/gw")[0], bad("InvalidCertificateRef").0);
    assert!(router.table.listeners.is_empty());
}

#[test]
fn a_certificate_that_becomes_unusable_keeps_its_last_good_version() {
    let (chain, key) = certificate(&["a.com"], 2025, 2030);
    let mut objects = cluster();
    put(&mut objects.gateways, gw(&[with_tls("https 443 HTTPS b.com", &["x"])]));
    put(&mut objects.secrets, secret("infra/x", &chain, &key));
    let mut router = Router::gateway(objects.clone());
    router.complains(&["W infra/gw spec.listeners[0].tls.certificateRefs: no certificate is for"]);
    assert_eq!(router.listeners(Kind::Gateway, "infra/gw"), [format!("https {HTTP} 0: {GOOD}")]);
    put(&mut objects.secrets, secret("infra/x", "slip", &key));
    router.objects(objects);
    let listener = router.listeners(Kind::Gateway, "infra/gw").remove(0);
    let reason = "Accepted Programmed ResolvedRefs=False/InvalidCertificateRef Conflicted";
    assert_eq!(listener, format!("https {HTTP} 0: {reason}"));
    assert_eq!(router.tls(443, Some("b.com")), "x");
}

#[test]
fn listeners_beyond_the_bound_are_refused_by_name() {
    let many = |set: usize| {
        let listeners: Vec<_> =
            (0..64).map(|i| on(&format!("l{i} 80 HTTP h{i}.s{set}.com"))).collect();
        listener_set(&format!("infra/s{set:02}"), 1, "gw", &listeners)
    };
    let router = with(allowing(FromNamespaces::Same, &[on("http 80 HTTP")]), |objects| {
        (0..17).for_each(|set| put(&mut objects.listener_sets, many(set)));
    });
    let refused = |set: &str| {
        let listeners = router.listeners(Kind::ListenerSet, set);
        listeners.iter().filter(|it| it.contains("Accepted=False/TooManyListeners")).count()
    };
    assert_eq!(["infra/s14", "infra/s15", "infra/s16"].map(refused), [0, 1, 64]);
    assert_eq!(router.conditions(Kind::Gateway, "infra/gw"), "Accepted Programmed");
}

#[test]
fn parameters_and_addresses() {
    let mut parameters = gw(&[on("http 80 HTTP")]);
    parameters.infrastructure_parameters = Some(object("", "ConfigMap", "x"));
    let router = with(parameters, |_| {});
    let conditions = "Accepted=False/InvalidParameters Programmed=False/Invalid";
    assert_eq!(router.conditions(Kind::Gateway, "infra/gw"), conditions);
    assert!(router.table.listeners.is_empty() && router.services().is_empty());
    assert_eq!(router.listeners(Kind::Gateway, "infra/gw").len(), 1, "one entry for each listener");

    let asks = |addresses: &[(&str, &str)]| {
        let addresses = addresses.iter().map(|&(kind, value)| GatewayAddress {
            kind: kind.into(),
            value: (!value.is_empty()).then(|| value.into()),
        });
        let router =
            with(Gateway { addresses: addresses.collect(), ..gw(&[on("http 80 HTTP")]) }, |_| {});
        let service = router.generated("infra/pilus-gateway-gw");
        let wanted = service.and_then(|it| it.meta.annotation("lbipam.cilium.io/ips"));
        let wanted = wanted.unwrap_or_default().to_owned();
        (router.conditions(Kind::Gateway, "infra/gw"), wanted)
    };
    let fine = |wanted: &str| ("Accepted Programmed".to_owned(), wanted.to_owned());
    let unsupported = "Accepted=False/UnsupportedAddress Programmed=False/Invalid".to_owned();
    let unusable = "Accepted Programmed=False/AddressNotUsable".to_owned();
    assert_eq!(asks(&[("IPAddress", "")]), fine(""));
    assert_eq!(asks(&[("IPAddress", "10.0.0.1")]), fine("10.0.0.1"));
    assert_eq!(asks(&[("Hostname", "a.com")]), (unsupported.clone(), String::new()));
    let mixed = [("IPAddress", "10.0.0.1"), ("example.com/x", "y")];
    assert_eq!(asks(&mixed), (unsupported, String::new()));
    let both = [("IPAddress", "10.0.0.1"), ("IPAddress", "192.0.2.1")];
    assert_eq!(asks(&both), (unusable, "10.0.0.1,192.0.2.1".to_owned()));
}

#[test]
fn a_client_certificate_that_cannot_be_had() {
    let (chain, key) = certificate(&["a.com"], 2025, 2030);
    let state = |secret: &str| {
        let mut gateway = gw(&[on("http 80 HTTP")]);
        gateway.client_certificate = Some(object("", "Secret", secret));
        let router = with(gateway, |objects| {
            put(&mut objects.secrets, crate::build::secret("infra/good", &chain, &key));
            put(&mut objects.secrets, crate::build::secret("other/good", &chain, &key));
        });
        router.conditions(Kind::Gateway, "infra/gw")
    };
    assert_eq!(state("good"), "Accepted Programmed ResolvedRefs");
    let reason = |reason| format!("Accepted Programmed ResolvedRefs=False/{reason}");
    assert_eq!(state("missing"), reason("InvalidClientCertificateRef"));
    assert_eq!(state("other/good"), reason("RefNotPermitted"));
}

#[test]
fn how_clients_are_checked() {
    let (chain, key) = certificate(&["a.com"], 2025, 2030);
    let (ca, _) = certificate(&["ca"], 2025, 2030);
    let validation = |references: &[(&str, &str)], insecure_fallback| FrontendValidation {
        authorities: references.iter().map(|&(kind, name)| object("", kind, name)).collect(),
        insecure_fallback,
    };
    let state = |default: Option<FrontendValidation>, port: Option<Option<FrontendValidation>>| {
        let mut gateway = gw(&[
            with_tls("https 443 HTTPS", &["good"]),
            on("http 80 HTTP"),
            with_tls("more 8443 HTTPS", &["good"]),
        ]);
        gateway.frontend_validation = default;
        gateway.frontend_validation_per_port = port.map(|it| (8443, it)).into_iter().collect();
        let router = with(gateway, |objects| {
            put(&mut objects.secrets, secret("infra/good", &chain, &key));
            put(&mut objects.config_maps, authorities("infra/ca", &ca));
            put(&mut objects.config_maps, authorities("other/ca", &ca));
            put(&mut objects.config_maps, authorities("infra/bad", "nothing"));
        });
        let auth = |port| {
            let listener = router.listener("infra/pilus-gateway-gw", port)?;
            let Some(pilus::api::route::TlsAction::Terminate(it)) = listener.tls.find(None) else {
                return None;
            };
            Some(it.client_auth.as_ref().map(|auth| auth.optional))
        };
        let listeners = router.listeners(Kind::Gateway, "infra/gw").into_iter();
        let listeners: Vec<String> =
            listeners.map(|it| it.split_once(": ").unwrap().1.to_owned()).collect();
        (listeners, [auth(443), auth(8443)], router.conditions(Kind::Gateway, "infra/gw"))
    };
    let good = || [GOOD; 3].map(str::to_owned).to_vec();
    let fine = "Accepted Programmed".to_owned();
    let ca = || validation(&[("ConfigMap", "ca")], false);
    assert_eq!(state(None, None), (good(), [Some(None); 2], fine.clone()));
    assert_eq!(state(Some(ca()), None), (good(), [Some(Some(false)); 2], fine.clone()));
    assert_eq!(
        state(Some(ca()), Some(None)),
        (good(), [Some(Some(false)), Some(None)], fine.clone())
    );
    let insecure = validation(&[("ConfigMap", "ca")], true);
    let warned = format!("{fine} InsecureFrontendValidationMode=True/ConfigurationChanged");
    assert_eq!(state(None, Some(Some(insecure))), (good(), [Some(None), Some(Some(true))], warned));
    for (kind, name, reason) in [
        ("ConfigMap", "missing", "InvalidCACertificateRef"),
        ("ConfigMap", "bad", "InvalidCACertificateRef"),
        ("Secret", "ca", "InvalidCACertificateKind"),
        ("ConfigMap", "other/ca", "RefNotPermitted"),
    ] {
        let bad = validation(&[(kind, name)], false);
        let none = format!(
            "Accepted=False/NoValidCACertificate Programmed=False/Invalid ResolvedRefs=False/{reason} Conflicted"
        );
        let (listeners, auth, gateway) = state(Some(bad.clone()), Some(Some(ca())));
        assert_eq!(listeners, [none.clone(), GOOD.to_owned(), GOOD.to_owned()], "{kind} {name}");
        assert_eq!(auth, [None, Some(Some(false))], "nothing is served without the check");
        assert_eq!(gateway, "Accepted=True/ListenersNotValid Programmed");
        let some = validation(&[(kind, name), ("ConfigMap", "ca")], false);
        let (listeners, auth, _) = state(Some(some), None);
        assert_eq!(
            listeners[0],
            format!("Accepted Programmed ResolvedRefs=False/{reason} Conflicted")
        );
        assert_eq!(auth[0], Some(Some(false)));
    }
}

#[test]
fn conflicts_within_a_gateway_have_no_winner() {
    let conflicts = |listeners: &[GatewayListener]| {
        let router = with(gw(listeners), |_| {});
        let listeners = router.listeners(Kind::Gateway, "infra/gw").into_iter();
        let listeners = listeners.map(|it| {
            let reason = it.split_once("Conflicted=True/").map_or("-", |(_, reason)| reason);
            let accepted = format!("Accepted=False/{reason} Programmed=False/Invalid");
            assert!(reason == "-" || it.contains(&accepted), "{it}");
            reason.to_owned()
        });
        listeners.collect::<Vec<_>>()
    };
    let (hostname, protocol) = ("HostnameConflict", "ProtocolConflict");
    assert_eq!(
        conflicts(&[on("a 80 HTTP"), on("b 80 HTTP a.com"), on("c 80 HTTP *.com")]),
        ["-"; 3]
    );
    assert_eq!(
        conflicts(&[on("a 80 HTTP"), on("b 80 HTTP"), on("c 80 HTTP x.com")]),
        [hostname, hostname, "-"]
    );
    assert_eq!(
        conflicts(&[on("a 80 HTTP x"), on("b 80 TCP"), on("c 81 HTTP x")]),
        [protocol, protocol, "-"]
    );
    assert_eq!(conflicts(&[on("a 53 TCP"), on("b 53 UDP")]), ["-"; 2], "two transports");
    assert_eq!(conflicts(&[on("a 53 TCP"), on("b 53 TCP")]), [protocol; 2]);
    let (pass, own) = (with_tls("a 443 TLS a.com", &[]), with_tls("b 443 TLS a.com", &["x"]));
    assert_eq!(conflicts(&[pass.clone(), own]), [hostname; 2], "`tls` never tells listeners apart");
    assert_eq!(conflicts(&[pass, with_tls("b 443 TLS b.com", &["x"])]), ["-"; 2]);
}

// --- 5.9 ListenerSet ---

fn allowing(from: FromNamespaces, listeners: &[GatewayListener]) -> Gateway {
    Gateway { allowed_listeners: from, ..gw(listeners) }
}

#[test]
fn whether_listener_sets_may_attach() {
    let selector =
        LabelSelector { requirements: vec![Requirement::In("team".into(), vec!["blue".into()])] };
    for (from, infra, other, blue) in [
        (FromNamespaces::None, false, false, false),
        (FromNamespaces::Same, true, false, false),
        (FromNamespaces::All, true, true, true),
        (FromNamespaces::Selector(selector), false, false, true),
    ] {
        let router = with(allowing(from.clone(), &[on("http 80 HTTP")]), |objects| {
            let mut namespace = Namespace { meta: meta("blue") };
            namespace.meta.labels = labels(&[("team", "blue")]);
            put(&mut objects.namespaces, namespace);
            for (i, namespace) in ["infra", "other", "blue"].into_iter().enumerate() {
                let listener = on(&format!("own {} HTTP", 8080 + i));
                let name = format!("{namespace}/set");
                put(&mut objects.listener_sets, listener_set(&name, 1, "infra/gw", &[listener]));
            }
        });
        for (namespace, allowed) in [("infra", infra), ("other", other), ("blue", blue)] {
            let expected = if allowed {
                "Accepted Programmed"
            } else {
                "Accepted=False/NotAllowed Programmed=False/NotAllowed"
            };
            let set = format!("{namespace}/set");
            assert_eq!(router.conditions(Kind::ListenerSet, &set), expected, "{from:?} {set}");
        }
        let count = [infra, other, blue].into_iter().filter(|it| *it).count();
        let status = router.api_status(Kind::Gateway, "infra/gw");
        assert_eq!(status.attached_listener_sets, Some(count as u32));
        assert_eq!(router.table.listeners.len(), count + 1);
    }
}

#[test]
fn a_listener_set_gives_way_to_what_comes_before_it() {
    let router = with(allowing(FromNamespaces::Same, &[on("http 80 HTTP a.com")]), |objects| {
        let set = |text, created, listeners: &[GatewayListener]| {
            listener_set(text, created, "gw", listeners)
        };
        let sets = [
            set("infra/z-old", 1, &[on("x 80 HTTP a.com"), on("y 80 TCP"), on("z 80 HTTP b.com")]),
            set("infra/b", 2, &[on("x 80 HTTP b.com")]),
            set("infra/a", 2, &[on("x 80 HTTP c.com"), on("y 81 TCP")]),
            set("infra/c", 2, &[on("x 80 HTTP c.com"), on("y 81 HTTP"), on("z 82 HTTP")]),
        ];
        for set in sets {
            put(&mut objects.listener_sets, set);
        }
        let mut route = l4("infra/tcp", &["set:a#y"], &[], &["a:80"]);
        route.meta.created = 1;
        put(&mut objects.tcp_routes, route);
        put(&mut objects.http_routes, http("infra/r", &["set:z-old"]).rule(&[], &["b:80"]));
    });
    let lost = |reason: &str| {
        format!(
            "Accepted=False/{reason} Programmed=False/{reason} ResolvedRefs Conflicted=True/{reason}"
        )
    };
    assert_eq!(router.listeners(Kind::Gateway, "infra/gw"), [format!("http {HTTP} 0: {GOOD}")]);
    assert_eq!(router.conditions(Kind::Gateway, "infra/gw"), "Accepted Programmed");
    let some = "Accepted=True/ListenersNotValid Programmed";
    let none = "Accepted=False/ListenersNotValid Programmed=False/ListenersNotValid";
    let host = lost("HostnameConflict");
    let protocol = lost("ProtocolConflict");
    let kind = Kind::ListenerSet;
    // The route attaches to all three, served or not: the count is of attachments.
    let first = [
        format!("x {HTTP} 1: {host}"),
        format!("y [TCPRoute] 0: {protocol}"),
        format!("z {HTTP} 1: {GOOD}"),
    ];
    assert_eq!(router.listeners(kind, "infra/z-old"), first);
    assert_eq!(router.conditions(kind, "infra/z-old"), some);
    assert_eq!(router.listeners(kind, "infra/b"), [format!("x {HTTP} 0: {host}")]);
    assert_eq!(router.conditions(kind, "infra/b"), none);
    assert_eq!(router.conditions(kind, "infra/a"), "Accepted Programmed");
    assert_eq!(router.conditions(kind, "infra/c"), some);
    let status = router.api_status(Kind::Gateway, "infra/gw");
    assert_eq!(status.attached_listener_sets, Some(3));
    assert_eq!(router.get(80, "b.com", "/"), "b:80");
    assert_eq!(router.get(80, "a.com", "/"), "404", "that is the Gateway's, which has no route");
    let tcp = router.listener("infra/pilus-gateway-gw", 81).unwrap();
    assert_eq!(forwarded(tcp.forward.as_ref().unwrap()), "a:80");
}

#[test]
fn secrets_of_a_listener_set_need_a_grant_for_it() {
    let (chain, key) = certificate(&["a.com"], 2025, 2030);
    for (from, granted) in
        [("sets Gateway", false), ("sets ListenerSet", true), ("infra ListenerSet", false)]
    {
        let router = with(allowing(FromNamespaces::All, &[on("http 80 HTTP")]), |objects| {
            put(&mut objects.secrets, secret("other/good", &chain, &key));
            let listener = with_tls("own 443 HTTPS", &["other/good"]);
            put(&mut objects.listener_sets, listener_set("sets/set", 1, "infra/gw", &[listener]));
            put(&mut objects.reference_grants, grant("other", from, "Secret"));
        });
        let listener = router.listeners(Kind::ListenerSet, "sets/set").remove(0);
        let refused = listener.contains("ResolvedRefs=False/RefNotPermitted");
        assert_eq!(refused, !granted, "{from}: {listener}");
        assert_eq!(router.listener("infra/pilus-gateway-gw", 443).is_some(), granted);
    }
}

#[test]
fn proxy_protocol_is_asked_for_by_port() {
    let accepts = |value: &str| {
        let mut gateway = gw(&[on("a 80 HTTP"), on("b 81 TCP"), on("c 81 UDP")]);
        let key = "pilus.dev/accept-proxy-protocol";
        gateway.meta.annotations = labels(&[(key, value)]);
        let router = with(gateway, |_| {});
        let listeners = router.table.listeners.iter();
        let all: Vec<bool> = listeners.map(|it| it.accept_proxy_protocol).collect();
        (all, router.problems().len())
    };
    assert_eq!(accepts("81"), (vec![false, true, false], 0));
    assert_eq!(accepts("80, 81"), (vec![true, true, false], 0));
    assert_eq!(accepts("true"), (vec![true, true, false], 0));
    assert_eq!(accepts("false"), (vec![false; 3], 0));
    assert_eq!(accepts("yes"), (vec![true, true, false], 1), "fail closed");
    let mut gateway = gw(&[on("a 80 HTTP")]);
    gateway.meta.annotations = labels(&[("pilus.dev/acept-proxy-protocol", "80")]);
    with(gateway, |_| {}).complains(&["W infra/gw metadata.annotations..did you mean"]);
}
