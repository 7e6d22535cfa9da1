"""One configuration for each proxy, all of the same: N routes over HTTP, TLS and HTTP/2, TCP, TLS passthrough by name."""
import glob
import os
import shutil

ADDRESS = "127.18.0.1"
HOST = "bench.example.com"
BACKEND_PORT, SECURE_BACKEND_PORT = 21080, 21081
# plain HTTP, TLS with ALPN, HTTP/2 without TLS, TCP, TLS passthrough
PORTS = {"pilus": (21180, 21143, 21180, 21144, 21145), "nginx": (21280, 21243, 21282, 21244, 21245),
         "haproxy": (21380, 21343, 21382, 21344, 21345), "envoy": (21480, 21443, 21480, 21444, 21445)}
PLAIN, TLS, H2C, TCP, PASSTHROUGH = range(5)


def host_of(number):
    return HOST if number == 1 else f"host{number}.example.com"


def find_envoy():
    for path in glob.glob(os.path.join(os.environ.get("PILUS_BENCH_CACHE", "/nonexistent"), "envoy", "**", "envoy*"), recursive=True):
        if os.path.isfile(path) and os.access(path, os.X_OK) and os.path.getsize(path) > 10 * 2**20:
            return path
    return None


class Proxies:
    """Writes configurations below a folder; `path(name, text)` writes a file there and returns its path."""

    def __init__(self, path, folder, envoy, only):
        self.path, self.folder, self.envoy = path, folder, envoy
        known = {"pilus": self.pilus, "nginx": self.nginx, "haproxy": self.haproxy, "envoy": self.envoy_file}
        if not envoy:
            del known["envoy"]
        self.known = {name: make for name, make in known.items() if not only or name in only}

    def binaries(self):
        return {"pilus": os.environ["PILUS_BINARY"], "nginx": shutil.which("nginx"), "haproxy": shutil.which("haproxy"), "envoy": self.envoy}

    def commands(self, routes, version=0):
        """The command of each; the version is another way to write the same routes."""
        return {name: make(routes, version) for name, make in self.known.items()}

    def routes_of(self, name, routes, version):
        """Rewrites what holds the routes, whole; tells if the proxy must be told (by SIGHUP or a new process)."""
        if name == "pilus":
            self.pilus_routes(routes, version)
        elif name == "nginx":
            self.nginx(routes, version)
        elif name == "haproxy":
            self.haproxy(routes, version)
        else:
            self.envoy_routes(routes, version)

    def move(self, name, text):
        """Writes a file beside, then renames it."""
        beside = self.path(f"beside/{os.path.basename(name)}", text)
        target = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(beside, target)
        return target

    # --- Pilus

    def pilus(self, routes, version):
        certificate, key = (open(self.path(name)).read().strip().replace("\n", "\n    ") for name in ("tls.crt", "tls.key"))
        plain, tls, _, tcp, passthrough = PORTS["pilus"]
        self.path(f"pilus-{routes}/m/base.yaml", f"""apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {{name: pool}}
spec: {{blocks: [{{start: {ADDRESS}, stop: {ADDRESS}}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: pilus}}
spec: {{controllerName: pilus.dev/gateway-controller}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: bench}}
spec:
  gatewayClassName: pilus
  listeners:
  - {{name: plain, protocol: HTTP, port: {plain}}}
  - {{name: tls, protocol: HTTPS, port: {tls}, tls: {{certificateRefs: [{{name: tls}}]}}}}
  - {{name: tcp, protocol: TCP, port: {tcp}}}
  - {{name: passthrough, protocol: TLS, port: {passthrough}, tls: {{mode: Passthrough}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {{name: bytes}}
spec: {{parentRefs: [{{name: bench, sectionName: tcp}}], rules: [{{backendRefs: [{{name: backend, port: 80}}]}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {{name: names}}
spec: {{parentRefs: [{{name: bench, sectionName: passthrough}}], hostnames: [{HOST}], rules: [{{backendRefs: [{{name: backend, port: 443}}]}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: backend}}
spec: {{ports: [{{name: http, port: 80, targetPort: {BACKEND_PORT}}}, {{name: https, port: 443, targetPort: {SECURE_BACKEND_PORT}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: backend-1, labels: {{kubernetes.io/service-name: backend}}}}
addressType: IPv4
ports: [{{name: http, port: {BACKEND_PORT}}}, {{name: https, port: {SECURE_BACKEND_PORT}}}]
endpoints: [{{addresses: [127.0.0.2]}}]
---
apiVersion: v1
kind: Secret
metadata: {{name: tls}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
    {certificate}
  tls.key: |
    {key}
""")
        self.pilus_routes(routes, version)
        return self.pilus_command(f"pilus-{routes}")

    def pilus_routes(self, routes, version):
        text = ""
        for number in range(1, routes + 1):
            backend = f"backendRefs: [{{name: backend, port: 80, weight: {1 + version}}}]"
            text += f"""apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: route{number}}}
spec: {{parentRefs: [{{name: bench}}], hostnames: [{host_of(number)}], rules: [{{matches: [{{path: {{type: PathPrefix, value: /r{number}}}}}], {backend}}}, {{matches: [{{path: {{type: PathPrefix, value: /v{version}}}}}], {backend}}}]}}
---
"""
        self.move(f"pilus-{routes}/m/routes.yaml", text)

    def pilus_command(self, name):
        root = os.path.join(self.folder, name)
        config = self.path(f"{name}/pilus.yaml", f"ingress:\n  http-port: {PORTS['pilus'][0] + 9}\n  https-port: {PORTS['pilus'][1] + 9}\n")
        return [os.environ["PILUS_BINARY"], "run", "--config", config, "--manifests", f"{root}/m", "--no-bpf",
                "--state-dir", f"{root}/state", "--admin", f"unix:{root}/admin.sock", "--metrics", "", "--node", "bench"]

    # --- nginx

    def nginx(self, routes, version):
        plain, tls, h2c, tcp, passthrough = PORTS["nginx"]
        servers = ""
        for number in range(1, routes + 1):
            first = number == 1
            listen = f"listen {ADDRESS}:{plain}{' backlog=4096 reuseport' if first else ''}; listen {ADDRESS}:{h2c} http2{' backlog=4096 reuseport' if first else ''};"
            listen += f" listen {ADDRESS}:{tls} ssl http2{' backlog=4096 reuseport' if first else ''};"
            proxy = """proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Request-Id $request_id;"""
            servers += f"server {{ {listen} server_name {host_of(number)}; location /r{number} {{ {proxy} }} location /v{version} {{ {proxy} }} }}\n"
        config = self.move(f"nginx-{routes}.conf", f"""
daemon off; worker_processes 1; pid {self.path('nginx.pid')}; error_log /dev/null;
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
events {{ worker_connections 12000; }}
stream {{
  server {{ listen {ADDRESS}:{tcp} backlog=4096; proxy_pass 127.0.0.2:{BACKEND_PORT}; }}
  map $ssl_preread_server_name $named {{ {HOST} 127.0.0.2:{SECURE_BACKEND_PORT}; }}
  server {{ listen {ADDRESS}:{passthrough} backlog=4096; ssl_preread on; proxy_pass $named; }}
}}
http {{ access_log off; keepalive_requests 1000000000; server_names_hash_max_size 65536; server_names_hash_bucket_size 128;
  keepalive_timeout 600s; client_max_body_size 0; http2_max_concurrent_streams 1024;
  ssl_certificate {self.path('tls.crt')}; ssl_certificate_key {self.path('tls.key')}; ssl_protocols TLSv1.2 TLSv1.3;
  upstream backend {{ server 127.0.0.2:{BACKEND_PORT}; keepalive 256; keepalive_requests 1000000000; }}
  {servers} }}""")
        return ["nginx", "-c", config]

    # --- HAProxy

    def haproxy(self, routes, version):
        plain, tls, h2c, tcp, passthrough = PORTS["haproxy"]
        table = "".join(f"{host_of(n)}/r{n} backend\n{host_of(n)}/v{version} backend\n" for n in range(1, routes + 1))
        table = self.move(f"haproxy-{routes}.map", table)
        config = self.move(f"haproxy-{routes}.cfg", f"""
global
  nbthread 1
  maxconn 10500
  no strict-limits
  stats socket {self.path('haproxy.sock')} mode 600 level admin expose-fd listeners
  tune.h2.max-concurrent-streams 1024
defaults
  timeout client 600s
  timeout server 600s
  timeout connect 5s
frontend plain
  mode http
  option forwardfor
  bind {ADDRESS}:{plain} backlog 4096
  bind {ADDRESS}:{h2c} proto h2 backlog 4096
  bind {ADDRESS}:{tls} ssl crt {self.path('both.pem')} backlog 4096 ssl-min-ver TLSv1.2 alpn h2,http/1.1
  http-request set-header X-Forwarded-Proto http
  unique-id-format %[uuid()]
  unique-id-header X-Request-Id
  use_backend %[base,lower,map_beg({table})]
backend backend
  mode http
  http-reuse always
  server one 127.0.0.2:{BACKEND_PORT} pool-max-conn 256
listen tcp
  mode tcp
  option splice-auto
  bind {ADDRESS}:{tcp} backlog 4096
  server one 127.0.0.2:{BACKEND_PORT}
frontend passthrough
  mode tcp
  option splice-auto
  bind {ADDRESS}:{passthrough} backlog 4096
  tcp-request inspect-delay 5s
  tcp-request content accept if {{ req_ssl_hello_type 1 }}
  use_backend named if {{ req_ssl_sni -i {HOST} }}
backend named
  mode tcp
  option splice-auto
  server one 127.0.0.2:{SECURE_BACKEND_PORT}
""")
        return ["haproxy", "-W", "-db", "-f", config]

    # --- Envoy

    def envoy_routes(self, routes, version):
        hosts = ""
        for number in range(1, routes + 1):
            host = host_of(number)
            hosts += (f'\n    - {{name: h{number}, domains: ["{host}", "{host}:*"], routes: [{{match: {{prefix: /r{number}}}, route: {{cluster: backend}}}},'
                      f' {{match: {{prefix: /v{version}}}, route: {{cluster: backend}}}}]}}')
        return self.move(f"envoy-{routes}-rds/routes.yaml", f"""
version_info: "{version}"
resources:
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: routes
  virtual_hosts:{hosts}
""")

    def envoy_file(self, routes, version):
        plain, tls, _, tcp, passthrough = PORTS["envoy"]
        table = self.envoy_routes(routes, version)
        listener = lambda port: f"{{socket_address: {{address: {ADDRESS}, port_value: {port}}}}}"
        cluster = lambda name, port: f"""
  - name: {name}
    connect_timeout: 5s
    load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.2, port_value: {port}}}}}}}}}]}}]}}"""
        tcp_proxy = lambda cluster: f"""[{{name: tcp, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: {cluster}}}}}]"""
        manager = f"""
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          use_remote_address: true
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          rds:
            route_config_name: routes
            config_source: {{path_config_source: {{path: {table}, watched_directory: {{path: {os.path.dirname(table)}}}}}, resource_api_version: V3}}"""
        config = self.path(f"envoy-{routes}.yaml", f"""
node: {{id: bench, cluster: bench}}
static_resources:
  listeners:
  - address: {listener(plain)}
    filter_chains:
    - filters:{manager}
  - address: {listener(tls)}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates: [{{certificate_chain: {{filename: {self.path('tls.crt')}}}, private_key: {{filename: {self.path('tls.key')}}}}}]
      filters:{manager}
  - address: {listener(tcp)}
    filter_chains: [{{filters: {tcp_proxy("backend")}}}]
  - address: {listener(passthrough)}
    listener_filters: [{{name: tls, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}}}]
    filter_chains: [{{filter_chain_match: {{server_names: [{HOST}]}}, filters: {tcp_proxy("secure")}}}]
  clusters:{cluster("backend", BACKEND_PORT)}{cluster("secure", SECURE_BACKEND_PORT)}
""")
        return [self.envoy, "--concurrency", "1", "--disable-hot-restart", "-l", "off", "-c", config]
