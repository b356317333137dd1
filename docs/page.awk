# Doxygen's view of a page: headings have GitHub's anchors as their ids, links lead to pages and headings by id.
# Usage: awk -f page.awk -v root=SOURCE_DIR/ PAGE

# "docs/scale.md" is the page "docs-scale".
function page_id(path) {
  sub(/\.md$/, "", path)
  gsub(/[^A-Za-z0-9]+/, "-", path)
  return path
}

function anchor_of(heading) {
  heading = tolower(heading)
  gsub(/\]\([^)]*\)/, "", heading)
  gsub(/[^a-z0-9 _-]/, "", heading)
  gsub(/ /, "-", heading)
  return heading
}

# `path` as seen from the root, where `from` is the folder of the page.
function resolved(from, path) {
  while (sub(/^\.\.\//, "", path)) sub(/[^\/]*\/$/, "", from)
  return from path
}

# What a link that is no address becomes: a reference, or plain text where no page stands behind it.
function link(text, target,    at, path, anchor) {
  at = index(target, "#")
  path = at ? substr(target, 1, at - 1) : target
  anchor = at ? substr(target, at + 1) : ""
  path = path == "" ? page : resolved(folder, path)
  if (path !~ /\.md$/) return text
  return "[" text "](@ref " page_id(path) (anchor == "" ? "" : "--" anchor) ")"
}

FNR == 1 {
  page = FILENAME
  if (index(page, root) == 1) page = substr(page, length(root) + 1)
  folder = page
  sub(/[^\/]*$/, "", folder)
}

/^ *```/ { in_code = !in_code }

!in_code && /^#+ / {
  text = $0
  sub(/^#+ +/, "", text)
  if (!titled) {
    titled = 1
    print $0 " {#" page_id(page) "}"
  } else {
    print $0 " {#" page_id(page) "--" anchor_of(text) "}"
  }
  next
}

!in_code {
  rest = $0
  line = ""
  while (match(rest, /\[[^][]*\]\([^() ]*\)/)) {
    before = substr(rest, 1, RSTART - 1)
    found = substr(rest, RSTART, RLENGTH)
    rest = substr(rest, RSTART + RLENGTH)
    at = index(found, "](")
    text = substr(found, 2, at - 2)
    target = substr(found, at + 2, length(found) - at - 2)
    line = line before (before ~ /!$/ || target ~ /^[a-z]+:/ ? found : link(text, target))
  }
  print line rest
  next
}

{ print }
