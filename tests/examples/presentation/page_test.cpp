// SPDX-License-Identifier: MIT
#include "presentation/page.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

#include "../temporary_folder.hpp"

namespace presentation {
namespace {

using examples::read_file;
using examples::TemporaryFolder;

TEST(Page, HoldsEverythingAndLinksTheFilesBesideIt) {
  const TemporaryFolder folder;
  Page page(folder.path(), "A <title>");
  page.heading("Part");
  page.paragraph("Words & more");
  page.table("The table", {{{"a", "b"}, {"1", "2"}}});
  Figure figure("Curves", "");
  figure.add(Panel{"P", {"x"}, {"y"}, {{"s", {0, 1}, {1, 2}, {}, {}}}});
  page.figure("curves", "What they show", figure, {{{"x", "s"}, {"0", "1"}, {"1", "2"}}});
  const std::string html = read_file(page.file());
  for (const char* words : {"<h1>A &lt;title&gt;</h1>", "<h2>Part</h2>", "Words &amp; more", "<td>2</td>", "<svg ",
                            "href=\"curves.svg\"", "href=\"curves.csv\"", "<!-- section -->", "<!-- /section -->"})
    EXPECT_NE(html.find(words), std::string::npos) << words;
  EXPECT_EQ(read_file(folder.path() / "curves.csv"), "x,s\n0,1\n1,2\n");
  EXPECT_EQ(read_file(folder.path() / "curves.svg"), figure.svg());
}

TEST(Page, StandsAfterEveryCall) {
  const TemporaryFolder folder;
  Page page(folder.path(), "Title");
  page.paragraph("first");
  EXPECT_NE(read_file(page.file()).find("first"), std::string::npos);
  page.paragraph("second");
  EXPECT_NE(read_file(page.file()).find("<p>second</p>\n<!-- /section -->"), std::string::npos);
}

TEST(Page, AFolderThatIsNotThereIsAnError) {
  const TemporaryFolder folder;
  EXPECT_THROW(Page(folder.path() / "missing", "Title").paragraph("x"), std::runtime_error);
}

}  // namespace
}  // namespace presentation
