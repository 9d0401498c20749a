// Sorts tables and filters tasks. Everything can be read without it.
document.documentElement.classList.add("js");

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") === "descending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const key = (row) => {
        const cell = row.cells[column];
        return cell.dataset.value === undefined ? cell.textContent.trim().toLowerCase() : Number(cell.dataset.value);
      };
      const order = (a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) * (ascending ? 1 : -1);
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
    });
  });
}

const tasks = [...document.querySelectorAll(".task")];
const cells = [...document.querySelectorAll(".cell")];
const search = document.querySelector("#search");
const status = document.querySelector("#found");
let groups = new Set(["won", "lost"]);

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const task of tasks) {
    const name = task.querySelector("summary").textContent.toLowerCase();
    const shown = groups.has(task.dataset.group) && words.every((word) => name.includes(word));
    task.hidden = !shown;
    found += shown;
  }
  for (const cell of cells) cell.setAttribute("aria-pressed", groups.has(cell.dataset.group));
  status.textContent = `${found} of ${tasks.length} tasks`;
}

if (search) {
  if (!tasks.some((task) => groups.has(task.dataset.group))) groups = new Set(["both", "none"]);
  search.addEventListener("input", filter);
  for (const cell of cells) {
    cell.addEventListener("click", () => {
      const group = cell.dataset.group;
      groups.has(group) ? groups.delete(group) : groups.add(group);
      filter();
    });
  }
  document.querySelector("#all").addEventListener("click", () => {
    groups = new Set(cells.map((cell) => cell.dataset.group));
    search.value = "";
    filter();
  });
  filter();
}
