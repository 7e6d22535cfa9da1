"""What a gRPC client of grpcio sees through the gateway. Arguments: ADDRESS, NAME, CERT (the gateway's)."""
import sys
import threading

import grpc

from checks import Checks, equal

LIMITS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
PATIENCE = 20


def error_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call succeeded")


class Calls:
    def __init__(self, channel):
        self.channel = channel
        self.unary = channel.unary_unary("/peers.Echo/Unary")
        self.client_stream = channel.stream_unary("/peers.Echo/ClientStream")
        self.server_stream = channel.unary_stream("/peers.Echo/ServerStream")
        self.bidi = channel.stream_stream("/peers.Echo/Bidi")
        self.hang = channel.unary_unary("/peers.Echo/Hang")
        self.hang_stream = channel.unary_stream("/peers.Echo/HangStream")
        self.cancelled = channel.unary_unary("/peers.Echo/Cancelled")

    def sizes(self):
        # Beyond the flow-control windows of either side (64 KiB), and beyond one frame (16 KiB).
        for size in (0, 1, 100, 16384, 16385, 65535, 65536, 1 << 20, 5 << 20):
            message = bytes(size // 7) + b"x" * (size - size // 7)
            equal(self.unary(message, timeout=PATIENCE) == message, True)

    def metadata(self):
        answer, call = self.unary.with_call(b"m", timeout=PATIENCE, metadata=[("x-back-word", "some text"), ("x-bits-bin", bytes(range(256)))])
        equal(answer, b"m")
        equal(dict(call.initial_metadata()).get("x-forth-word"), "some text")
        equal(dict(call.trailing_metadata()).get("x-bits-bin"), bytes(range(256)))

    def client_streaming(self):
        equal(self.client_stream(iter([b"a" * 1000] * 300), timeout=PATIENCE), b"300 300000")
        equal(self.client_stream(iter([]), timeout=PATIENCE), b"0 0")

    def server_streaming(self):
        got = list(self.server_stream(b"1000 1000", timeout=PATIENCE))
        equal(len(got), 1000)
        equal([message[0] for message in got], [number % 256 for number in range(1000)])
        equal(list(self.server_stream(b"0 0", timeout=PATIENCE)), [])

    def bidirectional(self):
        # Each message is sent only after the answer to the one before: nothing may be held back.
        turn, sent = threading.Semaphore(1), []

        def requests():
            for number in range(50):
                turn.acquire()
                sent.append(b"%d" % number)
                yield sent[-1]

        got = []
        for answer in self.bidi(requests(), timeout=PATIENCE):
            got.append(answer)
            turn.release()
        equal(got, sent)

    def statuses(self):
        for code in list(grpc.StatusCode)[1:]:
            error = error_of(lambda: self.unary(b"", timeout=PATIENCE, metadata=[("x-fail", str(code.value[0])), ("x-detail", "50% plain")]))
            equal(error.code(), code)
            equal(error.details(), "50% plain")

    def error_after_messages(self):
        got, call = [], self.server_stream(b"5 10 1", timeout=PATIENCE)

        def read():
            for message in call:
                got.append(message)

        error = error_of(read)
        equal((len(got), error.code(), error.details()), (5, grpc.StatusCode.DATA_LOSS, "after the messages"))

    def error_in_the_middle(self):
        error = error_of(lambda: list(self.bidi(iter([b"a", b"fail", b"b"]), timeout=PATIENCE)))
        equal((error.code(), error.details()), (grpc.StatusCode.ABORTED, "in the middle"))

    def unknown_method(self):
        error = error_of(lambda: self.channel.unary_unary("/peers.Echo/None")(b"", timeout=PATIENCE))
        equal(error.code(), grpc.StatusCode.UNIMPLEMENTED)

    def deadline(self, mark):
        error = error_of(lambda: self.hang(mark, timeout=0.5))
        equal(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        equal(self.cancelled(mark, timeout=PATIENCE), b"yes")

    def cancellation(self, mark):
        call = self.hang_stream(mark, timeout=PATIENCE)
        equal(next(call), b"first")
        call.cancel()
        equal(error_of(lambda: next(call)).code(), grpc.StatusCode.CANCELLED)
        equal(self.cancelled(mark, timeout=PATIENCE), b"yes")

    def many_at_once(self):
        made = [self.unary.future(b"%d" % number, timeout=PATIENCE) for number in range(300)]
        equal([call.result() for call in made], [b"%d" % number for number in range(300)])

    def compressed(self):
        answer = self.unary(b"a" * 100000, timeout=PATIENCE, compression=grpc.Compression.Gzip)
        equal(answer == b"a" * 100000, True)


def main():
    address, name, certificate = sys.argv[1:4]
    checks = Checks()
    named = [*LIMITS, ("grpc.default_authority", name)]
    roots = grpc.ssl_channel_credentials(open(certificate, "rb").read())
    tls = [*LIMITS, ("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)]
    for kind, channel in (("h2c", grpc.insecure_channel(f"{address}:80", named)), ("tls", grpc.secure_channel(f"{address}:443", roots, tls)),
                          ("tls-to-tls", grpc.secure_channel(f"{address}:8443", roots, tls))):
        calls = Calls(channel)
        for check in ("sizes", "metadata", "client_streaming", "server_streaming", "bidirectional", "statuses", "error_after_messages",
                      "error_in_the_middle", "unknown_method", "many_at_once", "compressed"):
            checks.run(f"{kind} {check}", getattr(calls, check))
        checks.run(f"{kind} deadline", lambda: calls.deadline(f"{kind} deadline".encode()))
        checks.run(f"{kind} cancellation", lambda: calls.cancellation(f"{kind} cancellation".encode()))
        channel.close()
    for other, code in (("nobody.test", grpc.StatusCode.UNIMPLEMENTED), ("empty.test", grpc.StatusCode.UNAVAILABLE), ("absent.test", grpc.StatusCode.UNAVAILABLE)):
        channel = grpc.insecure_channel(f"{address}:80", [*LIMITS, ("grpc.default_authority", other)])
        call = Calls(channel).unary
        checks.run(f"{other} gives {code.name}", lambda: equal(error_of(lambda: call(b"", timeout=PATIENCE)).code(), code))
    checks.end()


main()
