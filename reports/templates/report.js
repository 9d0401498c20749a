// Sorts tables; filters and sorts tasks. The page is readable without it.
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
const allGroups = cells.map((cell) => cell.dataset.group);
const [search, status, repository, policy, outcome, sort] =
  ["search", "count", "repository", "policy", "outcome", "sort"].map((id) => document.getElementById(id));
const words = new Map(tasks.map((task) => [task, task.querySelector("summary").textContent.toLowerCase()]));
const outcomes = new Map(tasks.map((task) => [task, JSON.parse(task.dataset.outcomes)]));
const title = (task) => task.querySelector(".name").firstChild.textContent;
const orders = {
  name: (a, b) => title(a).localeCompare(title(b), "en", { numeric: true }),
  broken: (a, b) => b.dataset.broken - a.dataset.broken,
  gain: (a, b) => b.dataset.gain - a.dataset.gain,
  loss: (a, b) => a.dataset.gain - b.dataset.gain,
};
let groups = new Set(["won", "lost"]);

function matches(task) {
  const isSelected = ([name, result]) =>
    (!policy.value || name === policy.value) && (!outcome.value || result === outcome.value);
  return (
    groups.has(task.dataset.group) &&
    (!repository.value || task.dataset.repository === repository.value) &&
    (!(policy.value || outcome.value) || outcomes.get(task).some(isSelected)) &&
    search.value.toLowerCase().split(/\s+/).every((word) => words.get(task).includes(word))
  );
}

function filter() {
  let shown = 0;
  for (const task of tasks) {
    task.hidden = !matches(task);
    shown += !task.hidden;
  }
  for (const cell of cells) cell.setAttribute("aria-pressed", groups.has(cell.dataset.group));
  status.textContent = `${shown} of ${tasks.length} tasks`;
}

function showAll(values = {}) {
  groups = new Set(allGroups);
  search.value = "";
  for (const select of [repository, policy, outcome]) select.value = values[select.id] || "";
  filter();
}

function order() {
  const sorted = sort.value ? [...tasks].sort(orders[sort.value]) : tasks;
  tasks[0].parentNode.append(...sorted);
}

// A link to one task, such as report.html#task-3, opens it, whatever the filters.
function openLinked() {
  const task = tasks.find((one) => `#${one.id}` === location.hash);
  if (!task) return;
  if (task.hidden) showAll();
  task.open = true;
  task.scrollIntoView();
}

if (search) {
  if (!tasks.some((task) => groups.has(task.dataset.group))) groups = new Set(["both", "none"]);
  for (const control of [search, repository, policy, outcome]) control.addEventListener("input", filter);
  sort.addEventListener("input", order);
  for (const cell of cells) {
    cell.addEventListener("click", () => {
      const group = cell.dataset.group;
      groups.has(group) ? groups.delete(group) : groups.add(group);
      filter();
    });
  }
  document.querySelector("#all").addEventListener("click", () => showAll());
  for (const pick of document.querySelectorAll(".pick")) {
    const show = () => {
      showAll(pick.dataset);
      document.getElementById("tasks").scrollIntoView();
      search.focus({ preventScroll: true });
    };
    pick.addEventListener("click", show);
    pick.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      show();
    });
  }
  filter();
  window.addEventListener("hashchange", openLinked);
  openLinked();
}
