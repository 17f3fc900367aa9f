"use strict";
(() => {
  const css = getComputedStyle(document.documentElement);
  const names = { "#0072b2": "--series-0", "#d55e00": "--series-1", "#009e73": "--series-2", "#cc79a7": "--series-3",
    "#e69f00": "--series-4", "#56b4e9": "--series-5", "#8a939e": "--faint", "#1d232b": "--ink" };
  const recoloured = (text) => Object.entries(names).reduce(
    (all, [colour, name]) => all.replaceAll(colour, css.getPropertyValue(name).trim()), text);
  for (const button of document.querySelectorAll(".explore")) {
    if (!window.Plotly) break;
    const number = button.dataset.figure;
    const drawing = document.querySelector(`#figure-${number} .drawing`);
    const still = drawing.innerHTML;
    let open = false;
    button.hidden = false;
    button.addEventListener("click", () => {
      if (open) { window.Plotly.purge(drawing); drawing.innerHTML = still; }
      else {
        const figure = JSON.parse(recoloured(document.getElementById(`data-${number}`).textContent));
        drawing.innerHTML = "";
        window.Plotly.newPlot(drawing, figure.data, figure.layout, { responsive: true, displaylogo: false });
      }
      open = !open;
      button.textContent = open ? "Back to the still figure" : "Explore";
    });
  }
  const copy = document.getElementById("copy");
  if (copy && navigator.clipboard) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById("command").textContent);
      copy.textContent = "Copied";
    });
  }
})();
