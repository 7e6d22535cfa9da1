use super::*;
use crate::api::object::{IpBlock, PathType, PortProtocol, ServiceType, TargetPort};
use crate::api::selector::Requirement;
use crate::proto::calendar::rfc3339;
use crate::proto::value::{Document, parse_json, parse_yaml};

fn decode_all(text: &str) -> Vec<Decoded> {
    let value = parse_yaml(Document { text, lines_before: 0 }).unwrap().unwrap();
    let life = |_: &ObjectKey, _: u64| Life { generation: 3, created: 1_755_953_577 };
    decode(value, Context { file: &"f.yaml".into(), served: false, life: &life })
}

pub(super) fn object(text: &str) -> Object {
    let mut all = decode_all(text);
    assert_eq!(all.len(), 1);
    let decoded = all.remove(0);
    let Outcome::Decoded(_, object) = decoded.outcome else { panic!("{:?}", decoded.problems) };
    object
}

fn service(text: &str) -> Arc<Service> {
    let Object::Service(service) = object(text) else { panic!("not a Service") };
    service
}

#[test]
fn a_service_has_the_defaults_of_kubernetes() {
    let service = service(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  labels: {a: b}\nspec:\n  type: LoadBalancer\n  \
         selector: {app: web}\n  ports:\n  - port: 80\nstatus:\n  loadBalancer:\n    ingress:\n    - ip: 192.0.2.1\n",
    );
    assert_eq!(service.meta.name, NamespacedName::new("default", "web"));
    assert_eq!(service.kind, ServiceType::LoadBalancer);
    assert_eq!(service.ports[0].protocol, PortProtocol::Tcp);
    assert_eq!(service.ports[0].target, TargetPort::Number(80));
    assert_eq!(service.status_ips, ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]);
    let uid = &service.meta.uid;
    assert_eq!(
        &*service.meta.json,
        format!(
            r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"creationTimestamp":"2025-08-23T12:52:57Z","generation":3,"labels":{{"a":"b"}},"name":"web","namespace":"default","uid":"{uid}"}},"spec":{{"externalTrafficPolicy":"Cluster","internalTrafficPolicy":"Cluster","ipFamilyPolicy":"SingleStack","ports":[{{"port":80,"protocol":"TCP","targetPort":80}}],"selector":{{"app":"web"}},"sessionAffinity":"None","type":"LoadBalancer"}}}}"#
        )
    );
}

#[test]
fn what_the_balancer_needs_of_a_service_is_read() {
    let of = |spec: &str| {
        let start = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: LoadBalancer, ports: [{port: 80}]";
        service(&format!("{start}, {spec}}}\n"))
    };
    let seconds = |it: &Service| it.session_affinity.map(|it| it.as_secs());
    assert_eq!(seconds(&of("sessionAffinity: ClientIP")), Some(10_800), "the default");
    let config = "sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}";
    assert_eq!(seconds(&of(&format!("sessionAffinity: ClientIP, {config}"))), Some(60));
    assert_eq!(seconds(&of(&format!("sessionAffinity: None, {config}"))), None);
    let service = of(
        "internalTrafficPolicy: Local, healthCheckNodePort: 32000, loadBalancerSourceRanges: [10.1.2.3/8, '2001:db8::/32']",
    );
    assert!(service.internal_traffic_local);
    assert_eq!(service.health_check_node_port, 32_000);
    let ranges: Vec<&str> = service.source_ranges.iter().map(|it| &**it).collect();
    assert_eq!(ranges, ["10.1.2.3/8", "2001:db8::/32"]);
    let plain = of("internalTrafficPolicy: Cluster");
    assert!(!plain.internal_traffic_local && plain.source_ranges.is_empty());
    assert_eq!((plain.health_check_node_port, seconds(&plain)), (0, None));
}

#[test]
fn fields_are_found_where_they_were_written() {
    let service = service(
        "# comment\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  clusterIP: None\n  ports:\n  \
         - name: a\n    port: 80\n  - {name: b,\n     port: 81}\n",
    );
    let at = |path| service.meta.position(path).unwrap().to_string();
    assert_eq!(at("spec.ports[0].port"), "f.yaml:9:5");
    assert_eq!(at("spec.ports[0].name"), "f.yaml:8:5");
    assert_eq!(at("spec.ports[1].port"), "f.yaml:11:6");
    assert_eq!(at("spec.ports[1].targetPort"), "f.yaml:10:5");
    assert_eq!(at("spec.type"), "f.yaml:5:1");
    assert_eq!(at("metadata.name"), "f.yaml:4:12");
    assert_eq!(at(""), "f.yaml:2:1");
    assert!(service.headless && service.cluster_ips.is_empty());
}

#[test]
fn a_secret_is_decoded_and_never_shown() {
    let object = object(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: aGFsbG8=, b: aGk=}\nstringData: {b: geheim, c: x}\n",
    );
    let Object::Secret(secret) = &object else { panic!("not a Secret") };
    assert_eq!(&*secret.kind, "Opaque");
    let data: Vec<(&str, &[u8])> = secret.data.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(data, [("a", &b"hallo"[..]), ("b", b"geheim"), ("c", b"x")]);
    let shown = parse_json(&secret.meta.json).unwrap();
    assert_eq!(to_json_compact(shown.get("data").unwrap()), r#"{"a":"","b":"","c":""}"#);
    for secret in ["aGFsbG8", "hallo", "geheim"] {
        assert!(!format!("{object:?}").contains(secret), "{secret} is shown");
    }
}

#[test]
fn an_ingress_is_read_in_full() {
    let object = object(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: i, namespace: x}\nspec:\n  \
         ingressClassName: cilium\n  defaultBackend: {resource: {apiGroup: k8s.example.com, kind: Bucket, name: b}}\n  \
         rules:\n  - host: '*.example.com'\n    http:\n      paths:\n      - pathType: ImplementationSpecific\n        \
         backend: {service: {name: web, port: {name: http}}}\n  tls:\n  - hosts: [a.example.com]\n    secretName: t\n  - {}\n",
    );
    let Object::Ingress(ingress) = object else { panic!("not an Ingress") };
    use crate::api::object::{IngressBackend, ServicePortRef};
    assert_eq!(ingress.class.as_deref(), Some("cilium"));
    let bucket = IngressBackend::Resource("k8s.example.com/Bucket b".into());
    assert_eq!(ingress.default_backend, Some(bucket));
    let path = &ingress.rules[0].paths[0];
    assert_eq!((&*path.path, path.path_type), ("/", PathType::ImplementationSpecific));
    let backend = IngressBackend::Service("web".into(), ServicePortRef::Name("http".into()));
    assert_eq!(path.backend, backend);
    assert_eq!(ingress.tls.len(), 2);
    assert!(ingress.meta.json.contains(r#""path":"/","pathType""#), "{}", ingress.meta.json);
}

#[test]
fn pools_and_policies() {
    let Object::Pool(pool) = object(
        "apiVersion: cilium.io/v2alpha1\nkind: CiliumLoadBalancerIPPool\nmetadata: {name: p}\nspec:\n  blocks:\n  \
         - {cidr: 10.0.0.7/24}\n  - {cidr: 2001:db8::1/0}\n  - {start: 10.0.1.1}\n  - {start: fd00::1, stop: fd00::9}\n  \
         serviceSelector: {matchLabels: {a: b}, matchExpressions: [{key: c, operator: DoesNotExist}]}\n",
    ) else {
        panic!("not a pool")
    };
    let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    assert_eq!(
        pool.blocks,
        [
            IpBlock::Cidr(ip("10.0.0.0"), 24),
            IpBlock::Cidr(ip("::"), 0),
            IpBlock::Range(ip("10.0.1.1"), ip("10.0.1.1")),
            IpBlock::Range(ip("fd00::1"), ip("fd00::9")),
        ]
    );
    assert!(pool.allow_first_last && !pool.disabled);
    assert!(pool.meta.name.namespace.is_empty());
    let requirements = &pool.selector.as_ref().unwrap().requirements;
    assert_eq!(requirements[0], Requirement::In("a".into(), vec!["b".into()]));
    assert_eq!(requirements[1], Requirement::DoesNotExist("c".into()));
}

#[test]
fn endpoints_become_slices() {
    let Object::EndpointSlices(slices) = object(
        "apiVersion: v1\nkind: Endpoints\nmetadata: {name: web}\nsubsets:\n- addresses: [{ip: 10.0.0.1, nodeName: w1}]\n  \
         notReadyAddresses: [{ip: 10.0.0.2, targetRef: {kind: Pod, name: p}}]\n  ports: [{port: 80}]\n- addresses: [{ip: 10.0.0.3}]\n  \
         ports: [{port: 81}]\n",
    ) else {
        panic!("no slices")
    };
    let names: Vec<String> = slices.iter().map(|slice| slice.meta.name.to_string()).collect();
    assert_eq!(names, ["default/endpoints/web", "default/endpoints/web/1"]);
    assert!(slices.iter().all(|slice| &*slice.service == "web" && !slice.meta.json.is_empty()));
    let ready: Vec<bool> = slices[0].endpoints.iter().map(|endpoint| endpoint.ready).collect();
    assert_eq!(ready, [true, false]);
    assert_eq!(slices[0].endpoints[1].pod, Some(NamespacedName::new("default", "p")));
}

#[test]
fn pods_are_ready_without_a_status_and_as_their_condition_says() {
    let pod = |status: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  nodeName: w1\n  initContainers:\n  - {{name: i, \
             ports: [{{containerPort: 1}}]}}\n  - {{name: s, restartPolicy: Always, ports: [{{containerPort: 2}}]}}\n  \
             containers:\n  - {{name: c, image: x, ports: [{{name: http, containerPort: 80}}]}}\nstatus: {status}\n"
        );
        let Object::Pod(pod) = object(&text) else { panic!("not a Pod") };
        pod
    };
    let plain = pod("{podIP: 10.0.0.1}");
    assert!(plain.ready && !plain.finished);
    let ports: Vec<u16> = plain.ports.iter().map(|port| port.port).collect();
    assert_eq!(ports, [80, 2]);
    assert!(!pod("{conditions: [{type: Ready, status: 'False'}]}").ready);
    assert!(pod("{conditions: [{type: Ready, status: 'True'}], phase: Running}").ready);
    assert!(pod("{phase: Succeeded}").finished);
}

#[test]
fn identities_are_stable_and_differ() {
    let uid =
        |kind, name| object_uid(&ObjectKey { kind, name: NamespacedName::new("default", name) });
    // Written down once: another value would make every object a new one after an upgrade.
    assert_eq!(&*uid(Kind::Service, "web"), "2526a834-7d09-80c7-91a3-7a5d406c647a");
    assert_ne!(uid(Kind::Service, "web"), uid(Kind::Service, "wec"));
    assert_ne!(uid(Kind::Service, "web"), uid(Kind::Secret, "web"));
    let uid = uid(Kind::Ingress, "a");
    assert_eq!((uid.len(), &uid[14..15]), (36, "8"));
    assert!(matches!(&uid[19..20], "8" | "9" | "a" | "b"));
}

#[test]
fn base64_and_time() {
    let table =
        [("", ""), ("YQ==", "a"), ("YWI=", "ab"), ("YWJj\n", "abc"), ("YWJj\nZA==", "abcd")];
    for (text, bytes) in table {
        assert_eq!(decode_base64(text).as_deref(), Ok(bytes.as_bytes()), "{text}");
    }
    for wrong in ["a", "ab", "abc", "=", "a===", "ab=c", "ab==c", "ab===", "a b=", "YQ==YQ=="] {
        assert!(decode_base64(wrong).is_err(), "{wrong}");
    }
    assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
    assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
    assert_eq!(rfc3339(4_107_542_399), "2100-02-28T23:59:59Z");
    assert_eq!(rfc3339(4_107_542_400), "2100-03-01T00:00:00Z");
}

#[test]
fn hints_are_near() {
    let words = ["type", "selector", "ports", "targetPort"];
    assert_eq!(did_you_mean("Type", words), Some("type"));
    assert_eq!(did_you_mean("tpye", words), Some("type"));
    assert_eq!(did_you_mean("prots", words), Some("ports"));
    assert_eq!(did_you_mean("targetport", words), Some("targetPort"));
    assert_eq!(did_you_mean("x", words), None);
    assert_eq!(did_you_mean("service", words), None);
}

#[test]
fn typing_errors_are_near_and_other_words_are_not() {
    let known = ["ingresses", "services", "svc", "manifests"];
    assert_eq!(did_you_mean("ingreses", known), Some("ingresses"));
    assert_eq!(did_you_mean("Manifets", known), Some("manifests"));
    assert_eq!(did_you_mean("scv", known), Some("svc"));
    assert_eq!(did_you_mean("gateways", known), None);
    assert_eq!(did_you_mean(&"x".repeat(10_000), known), None);
}

#[test]
fn a_namespace_is_labelled_with_its_name() {
    let decoded =
        object("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {a: b}}\n");
    let Object::Namespace(namespace) = decoded else { panic!("no Namespace") };
    let label = namespace.meta.labels.get("kubernetes.io/metadata.name");
    assert_eq!(label.map(|label| &**label), Some("shop"));
    let labels = r#""labels":{"a":"b","kubernetes.io/metadata.name":"shop"}"#;
    assert!(namespace.meta.json.contains(labels), "{}", namespace.meta.json);
}

#[test]
fn node_ports_that_the_api_server_has_given_out_are_nobodys_fault() {
    let text = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"web","namespace":"a"},
        "spec":{"type":"LoadBalancer","ports":[{"port":80,"nodePort":30080}]}}"#;
    for (served, complaints) in [(true, 0), (false, 1)] {
        let life = |_: &ObjectKey, _: u64| Life { generation: 3, created: 1_755_953_577 };
        let context = Context { file: &"f.yaml".into(), served, life: &life };
        let all = decode(parse_json(text).unwrap(), context);
        assert_eq!(all[0].problems.len(), complaints, "{:?}", all[0].problems);
    }
}
