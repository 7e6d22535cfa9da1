"""A gRPC server of grpcio whose messages are bytes. Arguments: ADDRESS:PORT, and CERT KEY for TLS."""
import sys
import threading
import time
from concurrent import futures

import grpc

CANCELLED = []


def unary(request, context):
    given = dict(context.invocation_metadata())
    for name, value in given.items():
        if name.startswith("x-back-"):
            context.send_initial_metadata([("x-forth-" + name[7:], value)])
    if "x-bits-bin" in given:
        context.set_trailing_metadata([("x-bits-bin", given["x-bits-bin"])])
    if "x-fail" in given:
        code = next(code for code in grpc.StatusCode if code.value[0] == int(given["x-fail"]))
        context.abort(code, given.get("x-detail", ""))
    return request


def client_stream(requests, _):
    sizes = [len(request) for request in requests]
    return f"{len(sizes)} {sum(sizes)}".encode()


def server_stream(request, context):
    count, size, *fail = (int(word) for word in request.split())
    for number in range(count):
        yield bytes([number % 256]) * size
    if fail:
        context.abort(grpc.StatusCode.DATA_LOSS, "after the messages")


def bidi(requests, context):
    for request in requests:
        if request == b"fail":
            context.abort(grpc.StatusCode.ABORTED, "in the middle")
        yield request


def hang(request, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait(30)
    CANCELLED.append(request)
    return b""


def hang_stream(request, context):
    yield b"first"
    yield hang(request, context)


def cancelled(request, _):
    for _ in range(500):
        if request in CANCELLED:
            return b"yes"
        time.sleep(0.01)
    return b"no"


class Handler(grpc.GenericRpcHandler):
    METHODS = {
        "/peers.Echo/Unary": grpc.unary_unary_rpc_method_handler(unary),
        "/peers.Echo/ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "/peers.Echo/ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "/peers.Echo/Bidi": grpc.stream_stream_rpc_method_handler(bidi),
        "/peers.Echo/Hang": grpc.unary_unary_rpc_method_handler(hang),
        "/peers.Echo/HangStream": grpc.unary_stream_rpc_method_handler(hang_stream),
        "/peers.Echo/Cancelled": grpc.unary_unary_rpc_method_handler(cancelled),
    }

    def service(self, details):
        return self.METHODS.get(details.method)


def main():
    server = grpc.server(futures.ThreadPoolExecutor(32), options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((Handler(),))
    if len(sys.argv) > 2:
        certificate, key = (open(path, "rb").read() for path in sys.argv[2:4])
        server.add_secure_port(sys.argv[1], grpc.ssl_server_credentials([(key, certificate)]))
    else:
        server.add_insecure_port(sys.argv[1])
    server.start()
    print("ready", flush=True)
    sys.stdin.read()


main()
