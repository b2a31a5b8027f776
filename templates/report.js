// Sorting and filtering of the device tables. Without scripts the page shows the same rows, unsorted.
document.querySelectorAll("table.devices").forEach(function (table) {
  var bodies = Array.prototype.slice.call(table.tBodies);
  Array.prototype.forEach.call(table.tHead.rows[0].cells, function (head, column) {
    var button = document.createElement("button");
    button.className = "sort";
    button.type = "button";
    button.textContent = head.textContent;
    head.textContent = "";
    head.appendChild(button);
    button.addEventListener("click", function () {
      var down = head.getAttribute("aria-sort") === "ascending";
      Array.prototype.forEach.call(head.parentNode.cells, function (cell) { cell.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      bodies.slice().sort(function (one, two) {
        var a = one.rows[0].cells[column], b = two.rows[0].cells[column];
        var x = a.dataset.sort, y = b.dataset.sort;
        var order = x !== undefined && y !== undefined ? x - y : a.textContent.localeCompare(b.textContent);
        return down ? -order : order;
      }).forEach(function (body) { table.appendChild(body); });
    });
  });
  if (bodies.length < 8) { return; }
  var label = document.createElement("label"), input = document.createElement("input");
  label.className = "filter";
  input.type = "search";
  input.placeholder = "Filter devices";
  input.setAttribute("aria-label", "Filter devices");
  input.addEventListener("input", function () {
    var wanted = input.value.toLowerCase();
    bodies.forEach(function (body) { body.hidden = body.rows[0].textContent.toLowerCase().indexOf(wanted) < 0; });
  });
  label.appendChild(input);
  table.parentNode.parentNode.insertBefore(label, table.parentNode);
});
window.addEventListener("beforeprint", function () {
  document.querySelectorAll("details").forEach(function (part) { part.open = true; });
});
