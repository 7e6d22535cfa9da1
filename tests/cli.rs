//! The command line as people and scripts use it: the real binary against a real admin server.
#![expect(clippy::unwrap_used, reason = "a test that cannot do its step must fail")]
#[path = "cli/agent.rs"]
mod agent;

use std::process::{Command, Output};

use agent::TestAgent;

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pilus"));
    command.args(words).env_remove("PILUS_ADMIN").env_remove("NO_COLOR");
    command
}

fn pilus(words: &[&str]) -> Output {
    command(words).output().unwrap()
}

fn ask(agent: &TestAgent, words: &str) -> Output {
    let words: Vec<&str> = words.split(' ').collect();
    command(&words).env("PILUS_ADMIN", &agent.address).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn prints(agent: &TestAgent, words: &str, expected: &str) {
    let output = ask(agent, words);
    assert_eq!(out(&output), expected, "{}", err(&output));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn help_teaches_and_goes_to_standard_output() {
    let output = pilus(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = out(&output);
    for command in [
        "run", "check", "get", "status", "service", "endpoint", "ip", "route", "config", "explain",
        "observe", "version",
    ] {
        assert!(
            text.lines().any(|line| line.trim_start().starts_with(command)),
            "{command}\n{text}"
        );
    }
    assert!(text.contains("pilus explain http://shop.example/cart"), "{text}");
    for command in ["run", "check", "get", "status", "explain", "observe", "version"] {
        let output = pilus(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(out(&output).starts_with("Usage: pilus "), "{}", out(&output));
    }
    let run = out(&pilus(&["run", "--help"]));
    for flag in [
        "--config",
        "--manifests",
        "--kubeconfig",
        "--in-cluster",
        "--node",
        "--interface",
        "--state-dir",
        "--bpf-root",
        "--admin",
        "--metrics",
        "--name-prefix",
        "--no-bpf",
    ] {
        assert!(run.contains(flag), "{flag}");
    }
    assert_eq!(out(&pilus(&["version"])), format!("pilus {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(out(&pilus(&["--version"])), out(&pilus(&["version"])));
}

#[test]
fn a_wrong_command_line_is_exit_code_2_with_nothing_on_standard_output() {
    for words in [
        &[][..],
        &["frobnicate"],
        &["get"],
        &["get", "svc", "--nonsense"],
        &["get", "svc", "-o", "xml"],
        &["get", "svc", "a", "-A"],
        &["service"],
        &["check"],
        &["explain"],
        &["observe", "--follow"],
        &["status", "--admin", "nowhere"],
        &["run", "--kubeconfig", "/etc/k", "--in-cluster"],
        &["run", "--manifests", "/tmp", "--in-cluster"],
        &["run", "--manifests", "/tmp", "--name-prefix", "Not A Label"],
        &["run", "--manifests", "/tmp", "--metrics", "everywhere"],
    ] {
        let output = pilus(words);
        assert_eq!(output.status.code(), Some(2), "{words:?} {}", err(&output));
        assert_eq!(out(&output), "", "{words:?}");
        assert!(!err(&output).is_empty(), "{words:?}");
    }
    assert!(err(&pilus(&["observe"])).contains("not there yet"));
    assert!(err(&pilus(&["run", "--in-cluster"])).contains("is this a pod?"));
}

#[test]
fn an_agent_that_is_not_there_is_exit_code_3_with_advice() {
    let output = pilus(&["status", "--admin", "unix:/nonexistent/admin.sock"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(err(&output).contains("no agent at unix:/nonexistent/admin.sock"), "{}", err(&output));
    assert!(err(&output).contains("is it running?"), "{}", err(&output));
}

#[test]
fn a_wrong_configuration_file_is_refused_with_its_place() {
    let directory = agent::directory("config");
    let file = directory.join("pilus.yaml");
    std::fs::write(&file, "node: a\nmanifest: [/x]\n").unwrap();
    let output = pilus(&["run", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let expected =
        format!("{}:2:1: manifest: unknown key (did you mean \"manifests\"?)\n", file.display());
    assert_eq!(err(&output), expected);
    let output = pilus(&["run", "--config", "/nonexistent/pilus.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).starts_with("/nonexistent/pilus.yaml: cannot be read"));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn check_counts_and_places_every_fault() {
    let directory = agent::directory("check");
    let path = directory.to_str().unwrap();
    let good = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    std::fs::write(directory.join("a.yaml"), good).unwrap();
    let output = pilus(&["check", path]);
    assert_eq!(out(&output), "1 object, 0 errors, 0 warnings\n");
    assert_eq!(output.status.code(), Some(0));
    let bad = format!(
        "{good}---\napiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{prots: []}}\n"
    );
    std::fs::write(directory.join("a.yaml"), bad).unwrap();
    let output = pilus(&["check", path, "/nonexistent"]);
    assert_eq!(output.status.code(), Some(1));
    let text = out(&output);
    assert!(
        text.contains(&format!("{path}/a.yaml:8:8: Service default/s: spec.prots: ")),
        "{text}"
    );
    assert!(text.contains("/nonexistent"), "{text}");
    assert!(text.lines().last().unwrap().contains("1 object, 3 errors, 0 warnings"), "{text}");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn get_prints_kubectls_tables() {
    let agent = TestAgent::start("tables");
    prints(
        &agent,
        "get svc",
        "NAME     TYPE        CLUSTER-IP    EXTERNAL-IP   PORT(S)    AGE\n\
         legacy   ClusterIP   None          <none>        <none>     3d5h\n\
         webpod   ClusterIP   10.96.4.233   <none>        9080/TCP   3d5h\n",
    );
    prints(
        &agent,
        "get service -A -o wide",
        "NAMESPACE     NAME             TYPE           CLUSTER-IP    EXTERNAL-IP                PORT(S)          AGE    SELECTOR\n\
         default       legacy           ClusterIP      None          <none>                     <none>           3d5h   <none>\n\
         default       webpod           ClusterIP      10.96.4.233   <none>                     9080/TCP         3d5h   app=webpod\n\
         kube-system   cilium-ingress   LoadBalancer   <none>        192.168.10.211,fd00::211   80/TCP,443/TCP   3d5h   <none>\n\
         kube-system   waiting          LoadBalancer   <none>        <pending>                  53:31053/UDP     3d5h   <none>\n",
    );
    prints(
        &agent,
        "get svc -nkube-system cilium-ingress",
        "NAME             TYPE           CLUSTER-IP   EXTERNAL-IP        PORT(S)          AGE\n\
         cilium-ingress   LoadBalancer   <none>       192.168.10.21...   80/TCP,443/TCP   3d5h\n",
    );
    prints(
        &agent,
        "get ing",
        "NAME            CLASS    HOSTS                              ADDRESS          PORTS     AGE\n\
         basic-ingress   cilium   *                                  192.168.10.211   80        3d5h\n\
         many-hosts      <none>   a.shop,b.shop,c.shop + 1 more...                    80, 443   3d5h\n",
    );
    prints(
        &agent,
        "get ingressclasses",
        "NAME     CONTROLLER                     PARAMETERS   AGE\n\
         cilium   cilium.io/ingress-controller   <none>       3d5h\n",
    );
    prints(
        &agent,
        "get ippool",
        "NAME             DISABLED   CONFLICTING   IPS AVAILABLE   AGE\n\
         cilium-lb-pool   false      False         4               3d5h\n",
    );
    prints(&agent, "get l2announcement", "NAME   AGE\nlan    3d5h\n");
    prints(
        &agent,
        "get pods -o wide",
        "NAME       READY   STATUS    RESTARTS   AGE    IP           NODE     NOMINATED NODE   READINESS GATES\n\
         webpod-1   1/1     Running   0          3d5h   10.244.0.5   k8s-w1   <none>           <none>\n\
         webpod-2   0/1     Running   0          3d5h   10.244.1.6   k8s-w1   <none>           <none>\n",
    );
    prints(
        &agent,
        "get nodes",
        "NAME     STATUS    ROLES           AGE    VERSION\n\
         k8s-w1   Unknown   control-plane   3d5h   <none>\n",
    );
    prints(
        &agent,
        "get ep",
        "NAME     ENDPOINTS         AGE\n\
         legacy   <none>            3d5h\n\
         webpod   10.244.0.5:9080   3d5h\n",
    );
    prints(
        &agent,
        "get endpointslices -A",
        "NAMESPACE   NAME         ADDRESSTYPE   PORTS   ENDPOINTS    AGE\n\
         default     webpod-abc   IPv4          9080    10.244.0.5   3d5h\n",
    );
    prints(
        &agent,
        "get secrets",
        "NAME   TYPE                DATA   AGE\ncert   kubernetes.io/tls   2      3d5h\n",
    );
    prints(&agent, "get cm", "NAME       DATA   AGE\nsettings   1      3d5h\n");
    prints(&agent, "get ns", "NAME      STATUS   AGE\ndefault   Active   3d5h\n");
    prints(
        &agent,
        "get lease -n kube-system",
        "NAME                                          HOLDER   AGE\n\
         pilus-l2announce-kube-system-cilium-ingress   k8s-w1   3d5h\n",
    );
}

#[test]
fn get_prints_json_and_yaml_with_the_status_merged() {
    let agent = TestAgent::start("json");
    let text = out(&ask(&agent, "get svc cilium-ingress -n kube-system -o json"));
    let ingress =
        "\"ingress\": [\n                {\n                    \"ip\": \"192.168.10.211\"";
    assert!(text.contains(ingress), "{text}");
    assert!(text.contains("\"type\": \"cilium.io/IPAMRequestSatisfied\""), "{text}");
    assert!(text.contains("\"lastTransitionTime\": \"20"), "{text}");
    let list = out(&ask(&agent, "get svc -A -o json"));
    assert!(list.starts_with("{\n    \"apiVersion\": \"v1\",\n    \"items\": [\n"), "{list}");
    assert!(list.contains("\"kind\": \"List\""), "{list}");
    let empty = ask(&agent, "get svc -n nobody -o json");
    assert!(out(&empty).contains("\"items\": []"), "{}", out(&empty));
    let yaml = out(&ask(&agent, "get ing basic-ingress -o yaml"));
    assert!(yaml.starts_with("apiVersion: networking.k8s.io/v1\nkind: Ingress\n"), "{yaml}");
    assert!(
        yaml.contains("status:\n  loadBalancer:\n    ingress:\n    - ip: 192.168.10.211\n"),
        "{yaml}"
    );
    let secret = out(&ask(&agent, "get secret cert -o yaml"));
    assert!(secret.contains("data:\n  tls.crt: null\n  tls.key: null\n"), "{secret}");
    let lease = out(&ask(&agent, "get lease -n kube-system -o yaml"));
    assert!(lease.contains("holderIdentity: k8s-w1"), "{lease}");
}

#[test]
fn what_is_not_there_is_exit_code_1_in_kubectls_words() {
    let agent = TestAgent::start("missing");
    let output = ask(&agent, "get ingress nope");
    assert_eq!(output.status.code(), Some(1));
    let expected = "Error from server (NotFound): ingresses.networking.k8s.io \"nope\" not found\n";
    assert_eq!(err(&output), expected);
    assert_eq!(out(&output), "");
    let output = ask(&agent, "get ingreses");
    assert_eq!(output.status.code(), Some(1));
    let expected = "error: the server doesn't have a resource type \"ingreses\"; did you mean \"ingresses\"?\n";
    assert_eq!(err(&output), expected);
    let output = ask(&agent, "get svc -n empty");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(err(&output), "No resources found in empty namespace.\n");
}

#[test]
fn status_and_lists_say_what_is_what() {
    let agent = TestAgent::start("lists");
    let status = out(&ask(&agent, "status"));
    for part in [
        "Node k8s-w1   version ",
        "admin   Running   0 ",
        "skipped kinds: 2 Deployment",
        "192.168.10.211   eth1        Holder   k8s-w1   ",
        "the highest priority of 2 nodes",
        "not announced: kube-system/waiting: it has no address",
        "kube-system/cilium-ingress   80     HTTP       192.168.10.211",
        "generation: 7",
        "failed: eth9: no such device",
        "tc eth1: attached",
        "error (for 3d5h): /m/a.yaml:3:7: Ingress default/broken: spec.rules[0].host: bad host",
    ] {
        assert!(status.contains(part), "{part}\n{status}");
    }
    assert!(!status.contains('\x1b'), "no colours away from a terminal");
    let json = out(&ask(&agent, "status -o json"));
    assert!(json.contains("\"apiVersion\": \"pilus.dev/v1alpha1\""), "{json}");
    let services = out(&ask(&agent, "service list"));
    assert_eq!(
        services,
        "NAMESPACE     NAME             FRONTEND             PROTOCOL   BACKENDS                                                    HOLDER\n\
         default       webpod           10.96.0.9:9080       TCP        10.244.0.5:9080 (active, direct return by 192.168.10.102)   <none>\n\
         \x20                                                              10.244.1.6:9080 (not-ready)\n\
         kube-system   cilium-ingress   192.168.10.211:80    TCP        proxy                                                       k8s-w1\n\
         kube-system   cilium-ingress   192.168.10.211:443   TCP        <none>                                                      k8s-w1\n\
         kube-system   cilium-ingress   [fd00::211]:80       TCP        <none>                                                      <none>\n\
         kube-system   cilium-ingress   [fd00::211]:443      TCP        <none>                                                      <none>\n",
    );
    let json = out(&ask(&agent, "service list -o json"));
    for part in
        ["\"servedBy\": \"kernel\"", "\"reach\": \"direct-return\"", "\"via\": \"192.168.10.102\""]
    {
        assert_eq!(json.matches(part).count(), 1, "{part}\n{json}");
    }
    prints(
        &agent,
        "endpoint list",
        "SERVICE          PORT   ADDRESS           STATE       NODE     POD\n\
         default/webpod   9080   10.244.0.5:9080   active      k8s-w1   default/webpod-1\n\
         default/webpod   9080   10.244.1.6:9080   not-ready   k8s-w1   default/webpod-2\n",
    );
    let addresses = out(&ask(&agent, "ip list"));
    assert!(addresses.contains("192.168.10.211   reserved:ingress "), "{addresses}");
    assert!(addresses.contains("reserved:host "), "{addresses}");
    prints(
        &agent,
        "route list",
        "LISTENER                        HOST   MATCH        PATH       ACTION                RULE\n\
         kube-system/cilium-ingress:80   *      Exact        /exact     404 no such Service   Ingress default/basic-ingress spec.rules[0].http.paths[1]\n\
         kube-system/cilium-ingress:80   *      PathPrefix   /details   default/gone:80       Ingress default/basic-ingress spec.rules[0].http.paths[2]\n\
         kube-system/cilium-ingress:80   *      PathPrefix   /          default/webpod:9080   Ingress default/basic-ingress spec.rules[0].http.paths[0]\n",
    );
    let config = out(&ask(&agent, "config view"));
    let key = "loadbalancer-l7-algorithm";
    let line = config.lines().find(|line| line.starts_with(key)).unwrap();
    assert!(line.ends_with("round_robin"), "{line}");
    let columns = config.lines().filter(|line| line.contains(' '));
    let starts: std::collections::BTreeSet<usize> = columns
        .map(|line| {
            line.find(' ').unwrap() + line[line.find(' ').unwrap()..].find(|it| it != ' ').unwrap()
        })
        .collect();
    assert_eq!(starts.len(), 1, "{config}");
    assert_eq!(
        starts.first(),
        Some(&("ingress-default-xff-num-trusted-hops".len() + 4)),
        "{config}"
    );
}

#[test]
fn explain_follows_a_request_and_says_why() {
    let agent = TestAgent::start("explain");
    let output = ask(&agent, "explain http://192.168.10.211/details");
    let text = out(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("wins over PathPrefix / (Exact before"), "{text}");
    assert!(text.ends_with("=> 503: no healthy upstream\n"), "{text}");
    let output = ask(&agent, "explain http://any.shop/cart?x=1 -XPOST --from default/webpod-1");
    let text = out(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in [
        "POST http://any.shop:80/cart\n",
        "source     Pod default/webpod-1 (10.244.0.5)\n",
        "address    192.168.10.211\n",
        "holder     k8s-w1 on eth1 (this node: Holder",
        "listener   HTTP port 80 of Service kube-system/cilium-ingress\n",
        "host       *\n",
        "route      PathPrefix /\n",
        "because: the only path that matches\n",
        "rule       Ingress default/basic-ingress\n",
        "backend    10.244.0.5:9080 active (Pod default/webpod-1 on k8s-w1)\n",
        "=> forwarded, round robin over 1 endpoint\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let output = ask(&agent, "explain http://192.168.10.211:8080/");
    assert_eq!(output.status.code(), Some(1));
    assert!(out(&output).contains("nothing listens on this port of it"), "{}", out(&output));
    let output = ask(&agent, "explain http://192.168.10.211/exact");
    assert!(out(&output).ends_with("=> 404: no such Service\n"), "{}", out(&output));
    for url in ["ftp://a/", "http://", "http://a:0/", "http://u@a/"] {
        let output = ask(&agent, &format!("explain {url}"));
        assert_eq!(output.status.code(), Some(2), "{url}");
        assert!(err(&output).starts_with("error: the URL"), "{}", err(&output));
    }
}
