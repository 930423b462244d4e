"""A gRPC server for journeys: `orders.proto` beside this file, on a free port, which it prints."""

import sys
import threading
from concurrent import futures
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).parent))
messages, services = grpc.protos_and_services("orders.proto")

CODES = {code.value[0]: code for code in grpc.StatusCode}

# More than 32 bits have room for.
LARGE = 1 << 40


def order(wish):
    answer = messages.Order(
        id=wish.id, amount=wish.amount * LARGE, state="SENT", tags=wish.tags, to=wish.to
    )
    answer.at.FromJsonString("2026-01-02T03:04:05Z")
    return answer


def varint_field(number, payload):
    """A field of bytes, as Protocol Buffers write it."""
    return bytes([number << 3 | 2, len(payload)]) + payload


class Orders(services.OrdersServicer):
    def Get(self, wish, context):
        context.set_trailing_metadata((("x-served-by", "orders"),))
        return order(wish)

    def Fail(self, failure, context):
        reason = messages.Reason(field="amount").SerializeToString()
        packed = varint_field(1, b"type.googleapis.com/orders.Reason") + varint_field(2, reason)
        status = bytes([8, failure.code]) + varint_field(2, failure.message.encode()) + varint_field(3, packed)
        context.set_trailing_metadata((("grpc-status-details-bin", status),))
        context.abort(CODES[failure.code], failure.message)

    def Late(self, wish, context):
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait()
        return order(wish)

    def Watch(self, wish, context):
        for _ in range(wish.amount):
            yield order(wish)


server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
services.add_OrdersServicer_to_server(Orders(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(f"127.0.0.1:{port}", flush=True)
# Whoever started it closes its input, or ends.
sys.stdin.read()
server.stop(None)
