// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <regex>
#include <set>
#include <sstream>
#include <string>

namespace {

std::string Output(const std::string& command) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(popen(command.c_str(), "r"), &pclose);
  std::string output;
  char buffer[4096];
  while (const size_t bytes = std::fread(buffer, 1, sizeof(buffer), pipe.get())) {
    output.append(buffer, bytes);
  }
  return output;
}

std::set<std::string> ExportedSymbols() {
  std::istringstream lines(Output("nm -D --defined-only \"" NESTLING_LIBRARY "\""));
  std::set<std::string> symbols;
  for (std::string address, type, name; lines >> address >> type >> name;) symbols.insert(name);
  return symbols;
}

// Functions that the header declares with NESTLING_API.
std::set<std::string> DeclaredFunctions() {
  std::ifstream file(NESTLING_HEADER);
  const std::string header((std::istreambuf_iterator<char>(file)), {});
  const std::regex declaration(R"(\nNESTLING_API[^;(]*?\b(nestling_\w+)\()");
  std::set<std::string> functions;
  for (std::sregex_iterator match(header.begin(), header.end(), declaration), end; match != end;
       ++match) {
    functions.insert((*match)[1]);
  }
  return functions;
}

TEST(ExportsTest, TheSharedLibraryExportsTheHeadersFunctionsAndNothingElse) {
  const std::set<std::string> declared = DeclaredFunctions();
  EXPECT_GT(declared.size(), 30u);  // the pattern still finds them
  EXPECT_THAT(ExportedSymbols(), testing::ElementsAreArray(declared));
}

}  // namespace
