# cmake -D FOLDER=DIR -D PARTS=a,b,c -P collect_study.cmake: the pages DIR/a/index.html ... become DIR/index.html, in
# this order.
cmake_minimum_required(VERSION 3.25)

set(contents "")
set(sections "")
set(head "")
string(REPLACE "," ";" parts "${PARTS}")
foreach(part IN LISTS parts)
  set(page "${FOLDER}/${part}/index.html")
  if(NOT EXISTS "${page}")
    message(FATAL_ERROR "${page} is not there: the program that writes it has not been run")
  endif()
  file(READ "${page}" html)
  string(FIND "${html}" "<!-- section -->" from)
  string(FIND "${html}" "<!-- /section -->" to)
  if(from EQUAL -1 OR to EQUAL -1)
    message(FATAL_ERROR "${page} has no section: an example's page was expected")
  endif()
  if(head STREQUAL "")
    # The first page's style serves all.
    string(SUBSTRING "${html}" 0 ${from} head)
    string(REGEX REPLACE "<title>[^<]*</title>" "<title>steppe: the study</title>" head "${head}")
  endif()
  math(EXPR length "${to} - ${from}")
  string(SUBSTRING "${html}" ${from} ${length} section)
  string(REGEX MATCH "<h1>([^<]*)</h1>" found "${section}")
  string(APPEND contents "<li><a href=\"#${part}\">${CMAKE_MATCH_1}</a></li>\n")
  # Files are beside the part's own page.
  string(REPLACE "<a href=\"" "<a href=\"${part}/" section "${section}")
  string(REPLACE "<h1>" "<h1 id=\"${part}\">" section "${section}")
  string(APPEND sections "${section}")
endforeach()

file(WRITE "${FOLDER}/index.html" "${head}<h1>steppe: the study</h1>
<p>Every example of steppe, run quickly: enough to see what each of them does, too little for conclusions. The examples' own pages
say how to run them in full.</p>
<ul>
${contents}</ul>
${sections}</body>
</html>
")
message("The study's page: ${FOLDER}/index.html")
