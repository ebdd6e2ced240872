// Read from disk, a browser lets no page start the worker that searches: the field for it goes, so that nobody waits for it.
if (location.protocol === "file:") {
  for (const part of document.querySelectorAll(".md-search, [for='__search'], #__search")) part.remove();
}
