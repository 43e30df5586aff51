// SPDX-License-Identifier: Apache-2.0
// Reads every #include "..." of the sources and fails on an edge that the table does not allow.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>

namespace {

namespace fs = std::filesystem;

// Folder -> folders whose headers it may include directly or through those (style.md (c)).
const std::map<std::string, std::set<std::string>> kAllowed = {
    {"kernels", {}},
    {"base", {}},
    {"container", {"base"}},
    {"model", {"base", "container"}},
    {"text", {"base", "container"}},
    {"pack", {"base", "container", "model", "text"}},
    {"sampling", {"base", "kernels"}},
    {"kv", {"base", "container", "model", "kernels"}},
    {"ple", {"base", "container", "model", "kernels"}},
    {"graph", {"base", "container", "model", "kernels"}},
    {"modality", {"base", "container", "model", "kernels", "graph"}},
    {"runtime",
     {"base", "container", "model", "kernels", "text", "sampling", "kv", "ple", "graph",
      "modality"}},
    {"c_api",
     {"base", "container", "model", "kernels", "text", "sampling", "kv", "ple", "graph",
      "modality", "runtime", "pack", "nestling"}},
    {"cli", {"nestling"}},
};

std::string FolderOf(const fs::path& file) {
  const std::string path =
      fs::relative(file, fs::path(NESTLING_SOURCE_DIR)).generic_string();
  if (path.rfind("kernels/", 0) == 0) return "kernels";
  const std::string inside = path.substr(std::string("src/").size());
  return inside.substr(0, inside.find('/'));
}

TEST(LayeringTest, EveryIncludeGoesDownTheTableOfFolders) {
  const std::regex include(R"(^\s*#include\s+"([^"/]+)/[^"]*")");
  size_t checked = 0;
  for (const char* root : {"kernels", "src"}) {
    for (const auto& entry :
         fs::recursive_directory_iterator(fs::path(NESTLING_SOURCE_DIR) / root)) {
      const std::string extension = entry.path().extension();
      if (extension != ".h" && extension != ".cc" && extension != ".c") continue;
      const std::string folder = FolderOf(entry.path());
      const auto allowed = kAllowed.find(folder);
      ASSERT_NE(allowed, kAllowed.end()) << entry.path() << " is in a folder without a layer";
      std::ifstream file(entry.path());
      std::string line;
      while (std::getline(file, line)) {
        std::smatch match;
        if (!std::regex_search(line, match, include)) continue;
        const std::string target = match[1];
        ++checked;
        EXPECT_TRUE(target == folder || allowed->second.count(target) == 1)
            << entry.path() << " includes " << line;
      }
    }
  }
  EXPECT_GT(checked, 100u);  // the pattern still finds includes
}

}  // namespace
