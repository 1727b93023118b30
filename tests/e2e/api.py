"""The public contract from Python: messages compiled from proto/ on the spot, calls by the method's name."""
import importlib
import os
import subprocess
import sys

import grpc
from google.protobuf import empty_pb2  # noqa: F401  (proves that the runtime is there before protoc is asked)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Api:
    """api.call("MachineService", "GetMachine", name="machines/m") -> GetMachineResponse."""

    def __init__(self, address, folder):
        generated = os.path.join(folder, "generated")
        os.makedirs(generated)
        names = sorted(file[:-len(".proto")] for file in os.listdir(os.path.join(ROOT, "proto", "mmlab", "v1")) if file.endswith(".proto"))
        protos = [f"mmlab/v1/{name}.proto" for name in names]
        subprocess.run(["protoc", "-I", os.path.join(ROOT, "proto"), f"--python_out={generated}", *protos], check=True)
        sys.path.insert(0, generated)
        modules = [importlib.import_module(f"mmlab.v1.{name}_pb2") for name in names]
        self._types = {name: value for module in modules for name, value in vars(module).items()}
        self._channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", 64 << 20)])

    def type(self, name):
        return self._types[name]

    def call(self, service, method, **fields):
        answer = self._types[method + "Response"]
        call = self._channel.unary_unary(f"/mmlab.v1.{service}/{method}", request_serializer=lambda message: message.SerializeToString(),
                                         response_deserializer=answer.FromString)
        return call(self._types[method + "Request"](**fields), timeout=60)

    def stream(self, service, method, **fields):
        """The answers of a server-streaming method, as they come."""
        answer = self._types[method + "Response"]
        call = self._channel.unary_stream(f"/mmlab.v1.{service}/{method}", request_serializer=lambda message: message.SerializeToString(),
                                          response_deserializer=answer.FromString)
        return call(self._types[method + "Request"](**fields), timeout=120)

    def batch(self, machine, operations):
        """operations: (name, fields) pairs; the outcomes."""
        members = [self.type("Operation")(**{name: fields}) for name, fields in operations]
        return self.call("OperationService", "ExecuteBatch", machine=machine, operations=members).outcomes

    def close(self):
        self._channel.close()
