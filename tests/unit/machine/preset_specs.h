#ifndef MMLAB_TESTS_UNIT_MACHINE_PRESET_SPECS_H_
#define MMLAB_TESTS_UNIT_MACHINE_PRESET_SPECS_H_

#include <string>
#include <vector>

#include "server/machine/machine_spec.h"

namespace mmlab {

// Names of all presets, sorted.
std::vector<std::string> PresetNames();
// The description of the preset; fails the test when there is none.
MachineSpec PresetSpec(const std::string& name);

// A file of the recorded boot behind a preset: tests/conformance/data/boot/<name>/<file>; fails the test when it is missing.
std::string RecordedFile(const std::string& name, const std::string& file);

// "686-1G" -> "686_1G", for names of test cases.
std::string CaseName(const std::string& preset);

}  // namespace mmlab

#endif  // MMLAB_TESTS_UNIT_MACHINE_PRESET_SPECS_H_
