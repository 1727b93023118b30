#include "server/base/check.h"

#include <string>

namespace mmlab {

void FailCheck(const char* condition, const char* file, int line) {
  throw CheckFailure(std::string("check failed: ") + condition + " at " + file + ":" + std::to_string(line));
}

}  // namespace mmlab
