#include "client/cli/commands.h"

int main(int argc, char** argv) { return mmlab::RunCommandLine(argc, argv); }
