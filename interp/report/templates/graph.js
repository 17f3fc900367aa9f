(() => {
  const svg = document.querySelector(".canvas svg");
  const edges = [...svg.querySelectorAll(".edge")];
  const dots = new Map([...svg.querySelectorAll(".dot")].map((dot) => [dot.getAttribute("href").slice(1), dot]));
  const chosen = () => (dots.has(location.hash.slice(1)) ? location.hash.slice(1) : "");
  const mark = () => {
    const id = chosen();
    svg.classList.toggle("chosen", id !== "");
    dots.forEach((dot, name) => { dot.classList.toggle("picked", name === id); dot.classList.remove("on"); });
    edges.forEach((edge) => {
      const on = id !== "" && (edge.dataset.from === id || edge.dataset.to === id);
      edge.classList.toggle("on", on);
      if (on) [edge.dataset.from, edge.dataset.to].forEach((name) => dots.get(name).classList.add("on"));
    });
    if (id !== "") dots.get(id).scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  addEventListener("hashchange", mark);
  addEventListener("keydown", (event) => {
    const id = chosen();
    if (id === "") return;
    if (event.key === "Escape") { location.hash = "none"; dots.get(id).focus(); return; }
    const up = event.key === "ArrowUp";
    if (!up && event.key !== "ArrowDown") return;
    const next = edges.find((edge) => (up ? edge.dataset.from : edge.dataset.to) === id);
    if (!next) return;
    event.preventDefault();
    location.hash = up ? next.dataset.to : next.dataset.from;
    dots.get(chosen()).focus();
  });
  mark();
})();
