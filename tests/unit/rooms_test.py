#!/usr/bin/env python3
"""Holds the rooms of server/ to their order: a room includes and links only rooms below it, and knows only the libraries it may know.

The order is the one in server/CMakeLists.txt. Run alone: python3 tests/unit/rooms_test.py
"""
import os
import re
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# The engine: a plain, deterministic library. It ends with this room.
LAST_ENGINE_ROOM = "procfs"

# What the engine must not see: other worlds (protocols, formats, files), and whatever differs from run to run (clocks, threads, chance).
FORBIDDEN_IN_ENGINE = re.compile(
    r"""proto/ | .*\.pb\.h$ | google/ | grpc | prometheus/ | httplib | nlohmann/ | yaml-cpp/ | CLI/ | zlib\.h | sqlite
      | (thread|mutex|shared_mutex|condition_variable|future|semaphore|stop_token|chrono|random|ctime|fstream|iostream|filesystem)$
      | absl/(time|synchronization|random|flags)/
      | (unistd|fcntl|time|pthread|poll|errno|signal)\.h$ | sys/ | linux/""",
    re.VERBOSE)

# Libraries that only some rooms may know, above the engine. main.cc puts the rooms together and may know all of them.
ONLY_IN = {
    re.compile(r"grpc(pp|\+\+)?/|.*\.grpc\.pb\.h$"): {"service"},
    re.compile(r"prometheus/"): {"metrics"},
    re.compile(r"httplib"): {"http"},
    re.compile(r"google/protobuf/|.*\.pb\.h$"): {"host", "service"},
    re.compile(r"sqlite|libpq"): {"store"},
}

# The client reaches the server through gRPC. Only --in-process starts one inside the command, through the assembly in server/service.
# Macros over absl::Status, which Debian's Abseil lacks, are no part of any engine. The recordings made inside kernels start from lists that
# no request can describe, so their replayer runs the engine itself.
CLIENT_MAY_INCLUDE = re.compile(r"server/service/server\.h$|server/base/status_macros\.h$")
CLIENT_OF_THE_ENGINE = os.path.join("client", "replay", "kernel") + os.sep

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
# A definition at the outermost level of a header: indented ones are members of something.
CLASS = re.compile(r"^(?:class|struct|enum class)\s+(?:\[\[\w+\]\]\s+)?(\w+)(?:\s+final)?(?:\s*:[^:;{][^;{]*)?\s*\{", re.MULTILINE)
NAMESPACE = re.compile(r"^(?:namespace (\w+) \{|\}  // namespace (\w+))$", re.MULTILINE)
SOURCES = (".h", ".cc")


def text_of(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def sources_below(folder):
    for parent, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            if name.endswith(SOURCES):
                yield os.path.join(parent, name)


def room_order(root):
    """The rooms, bottom to top, as server/CMakeLists.txt lists them."""
    found = re.search(r"foreach\(ROOM\s+([a-z_\s]+?)\)", text_of(os.path.join(root, "server", "CMakeLists.txt")))
    return found.group(1).split()


def include_violations(root):
    order = room_order(root)
    engine = order[: order.index(LAST_ENGINE_ROOM) + 1]
    problems = []
    for room in order:
        below = set(order[: order.index(room) + 1])
        for path in sources_below(os.path.join(root, "server", room)):
            where = os.path.relpath(path, root)
            for included in INCLUDE.findall(text_of(path)):
                parts = included.split("/")
                if parts[0] == "server" and parts[1] not in below:
                    problems.append(f"{where} includes {included}: {parts[1]} is not below {room}")
                if parts[0] in ("client", "tests"):
                    problems.append(f"{where} includes {included}: the server knows neither client nor tests")
                if room in engine and FORBIDDEN_IN_ENGINE.match(included):
                    problems.append(f"{where} includes {included}: the engine must not know it")
                for library, rooms in ONLY_IN.items():
                    if room not in engine and library.match(included) and room not in rooms:
                        problems.append(f"{where} includes {included}: only {', '.join(sorted(rooms))} may know it")
    for path in sources_below(os.path.join(root, "client")):
        rooms = engine if os.path.relpath(path, root).startswith(CLIENT_OF_THE_ENGINE) else []
        for included in INCLUDE.findall(text_of(path)):
            if not included.startswith("server/"):
                continue
            if not CLIENT_MAY_INCLUDE.match(included) and included.split("/")[1] not in rooms:
                problems.append(f"{os.path.relpath(path, root)} includes {included}: the client reaches the server through gRPC")
    return problems


def link_violations(root):
    order = room_order(root)
    problems = []
    for room in order:
        cmake = os.path.join(root, "server", room, "CMakeLists.txt")
        if not os.path.exists(cmake):
            continue
        text = re.sub(r"#.*", "", text_of(cmake))
        below = set(order[: order.index(room)])
        named = set(re.findall(r"\bmmlab_(\w+)\b", text)) & set(order) - {room}
        for deps in re.findall(r"\bDEPS\s+([a-z_\s]+)", text):
            named |= set(deps.split())
        for other in sorted(named - below):
            problems.append(f"server/{room}/CMakeLists.txt links {other}: it is not below {room}")
    return problems


def qualified_classes(text):
    """The classes that a header defines at the level of a namespace, as `outer::inner::Name`."""
    inside = []
    names = []
    for found in sorted([*NAMESPACE.finditer(text), *CLASS.finditer(text)], key=lambda match: match.start()):
        if found.re is CLASS:
            names.append("::".join([*inside, found.group(1)]))
        elif found.group(1):
            inside.append(found.group(1))
        elif inside:
            inside.pop()
    return names


def name_violations(root):
    """A class of a header has its name for itself: the `mmlab` command holds the server too, and two classes of one name would become
    one at link time, with the destructor of either."""
    places = {}
    for top in ("server", "client"):
        for path in sources_below(os.path.join(root, top)):
            if path.endswith(".h"):
                for name in qualified_classes(text_of(path)):
                    places.setdefault(name, []).append(os.path.relpath(path, root))
    return [f"{name} is defined in {' and '.join(paths)}" for name, paths in sorted(places.items()) if len(paths) > 1]


def furniture_violations(root):
    """Every folder is a known room and says in a README what lives there."""
    order = room_order(root)
    problems = []
    server = os.path.join(root, "server")
    for name in sorted(os.listdir(server)):
        folder = os.path.join(server, name)
        if not os.path.isdir(folder):
            continue
        if name not in order:
            problems.append(f"server/{name} is not a room of server/CMakeLists.txt")
        if os.path.exists(os.path.join(folder, "CMakeLists.txt")) and not os.path.exists(os.path.join(folder, "README.md")):
            problems.append(f"server/{name} has no README.md")
    return problems


class Rooms(unittest.TestCase):
    def test_no_room_includes_upwards(self):
        self.assertEqual(include_violations(ROOT), [])

    def test_no_room_links_upwards(self):
        self.assertEqual(link_violations(ROOT), [])

    def test_no_two_classes_have_one_name(self):
        self.assertEqual(name_violations(ROOT), [])

    def test_every_room_is_known_and_described(self):
        self.assertEqual(furniture_violations(ROOT), [])


class PlantedViolations(unittest.TestCase):
    """The checks above find what they are there to find."""

    def plant(self, files):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        files = {"server/CMakeLists.txt": "foreach(ROOM base physical procfs http service)\n", **files}
        for path, text in files.items():
            full = os.path.join(folder.name, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as f:
                f.write(text)
        return folder.name

    def test_includes(self):
        cases = (
            ("a lower room is fine", "server/physical/zone.cc", '#include "server/base/address.h"', None),
            ("its own room is fine", "server/physical/zone.cc", '#include "server/physical/zone.h"', None),
            ("a higher room", "server/base/a.h", '#include "server/physical/zone.h"', "physical is not below base"),
            ("a room that does not exist", "server/base/a.h", '#include "server/attic/b.h"', "attic is not below base"),
            ("indented and in a subfolder", "server/base/x/a.h", '  #  include "server/service/s.h"', "service is not below base"),
            ("generated messages in the engine", "server/physical/a.cc", '#include "proto/mmlab/v1/outcome.pb.h"', "engine"),
            ("a thread in the engine", "server/procfs/a.cc", "#include <thread>", "engine"),
            ("a clock in the engine", "server/base/a.cc", "#include <chrono>", "engine"),
            ("host chance in the engine", "server/base/a.cc", "#include <random>", "engine"),
            ("our own chance is fine", "server/base/a.cc", '#include "server/base/random.h"', None),
            ("a thread above the engine is fine", "server/http/a.cc", "#include <thread>", None),
            ("gRPC outside service", "server/http/a.cc", "#include <grpcpp/grpcpp.h>", "only service"),
            ("gRPC in service is fine", "server/service/a.cc", "#include <grpcpp/grpcpp.h>", None),
            ("main.cc may know all", "server/main.cc", '#include "server/service/s.h"', None),
            ("the client reaching into the engine", "client/a.cc", '#include "server/physical/zone.h"', "through gRPC"),
            ("the replayer of kernel recordings knows the engine", "client/replay/kernel/a.cc", '#include "server/physical/zone.h"', None),
            ("but no more of the server", "client/replay/kernel/a.cc", '#include "server/http/a.h"', "through gRPC"),
            ("the client starting a server is fine", "client/a.cc", '#include "server/service/server.h"', None),
            ("the server knowing the client", "server/base/a.cc", '#include "client/a.h"', "neither client"),
        )
        for name, path, text, expected in cases:
            with self.subTest(name):
                found = include_violations(self.plant({path: text + "\n"}))
                if expected is None:
                    self.assertEqual(found, [])
                else:
                    self.assertEqual(len(found), 1, found)
                    self.assertIn(expected, found[0])

    def test_links(self):
        cases = (
            ("a lower room is fine", "physical", "mmlab_room(physical\n  SOURCES a.cc\n  DEPS base\n  LIBS absl::btree)", 0),
            ("DEPS upwards", "base", "mmlab_room(base SOURCES a.cc DEPS physical)", 1),
            ("upwards as a library", "base", "target_link_libraries(mmlab_base PUBLIC mmlab_service)", 1),
            ("in a comment is fine", "base", "# mmlab_service links this.\nmmlab_room(base SOURCES a.cc)", 0),
        )
        for name, room, text, count in cases:
            with self.subTest(name):
                root = self.plant({f"server/{room}/CMakeLists.txt": text + "\n"})
                self.assertEqual(len(link_violations(root)), count, link_violations(root))

    def test_names(self):
        cases = (
            ("two classes", "class Link {", "class Link final : public Base {", 1),
            ("a class and a struct", "class Link {", "struct Link : Base {", 1),
            ("a declaration is fine", "class Link {", "class Link;", 0),
            ("a member is fine", "class Link {", "class Chain {\n  struct Link {", 0),
            ("a member defined outside is fine", "class Link {", "struct Link::Part {", 0),
        )
        for name, ours, theirs, count in cases:
            with self.subTest(name):
                root = self.plant({"server/http/a.h": ours + "\n", "client/b.h": theirs + "\n"})
                self.assertEqual(len(name_violations(root)), count, name_violations(root))

    def test_furniture(self):
        root = self.plant({"server/attic/a.cc": "", "server/base/CMakeLists.txt": ""})
        self.assertEqual(len(furniture_violations(root)), 2, furniture_violations(root))


if __name__ == "__main__":
    unittest.main()
