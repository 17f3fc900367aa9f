"use strict";
(() => {
  // The secret comes behind the # of the address, which is sent to nobody; this tab keeps it.
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem("interp-token", given);
    history.replaceState(null, "", location.pathname);
  }
  const token = sessionStorage.getItem("interp-token") || "";
  const $ = (id) => document.getElementById(id);
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));

  // Texts go in as text: nothing here makes markup of data.
  function el(tag, facts = {}, ...inside) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(facts)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value === true) made.setAttribute(key, "");
      else if (value !== false && value !== undefined && value !== null) made.setAttribute(key, value);
    }
    made.append(...inside.filter((one) => one !== null && one !== undefined));
    return made;
  }

  async function api(path, method = "GET", content) {
    const asked = { method, headers: { "X-Interp-Token": token } };
    if (content !== undefined) {
      asked.headers["Content-Type"] = "application/json";
      asked.body = JSON.stringify(content);
    }
    let found;
    try {
      found = await fetch(path, asked);
    } catch {
      throw new Error("The server does not answer: was interp serve ended? Start it again and open its new address.");
    }
    const text = await found.text();
    if ((found.headers.get("content-type") || "").startsWith("image/svg")) return text;
    let said = {};
    try { said = JSON.parse(text); } catch { said = { error: "The server's answer cannot be read." }; }
    if (!found.ok) throw new Error(said.error || `The server refused (${found.status}).`);
    return said;
  }

  const alertOf = (text) => { $("alert").textContent = text; $("alert").hidden = !text; };

  async function copied(button, text) {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it and copy";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }

  function code(title, text) {
    const button = el("button", { type: "button", "aria-label": `Copy as ${title}`, onclick: () => copied(button, text) }, "Copy");
    return [el("h3", {}, el("span", {}, `As ${title}`), button), el("pre", {}, el("code", {}, text))];
  }

  function recipe(answer) {
    const parts = code("Python", answer.python);
    if (answer.command) parts.push(...code("command", answer.command));
    else parts.push(el("p", { class: "note" }, `As command: ${answer.without}`));
    return el("details", { class: "copy", open: true }, el("summary", {}, "Copy as Python, copy as command"), ...parts);
  }

  // Forms ---------------------------------------------------------------------------------------------------

  const SHARED = ["prompt", "other", "source", "against", "chat", "site", "token"];
  const kept = {}; // what was written, by field, so that another view asks about the same prompt

  function control(field, id) {
    const value = kept[field.name] !== undefined && typeof kept[field.name] === typeof field.default ? kept[field.name] : field.default;
    const base = { id, name: field.name, "aria-describedby": field.help ? `${id}-help` : undefined };
    if (field.kind === "choice") {
      const known = field.choices.includes(value) ? value : field.default;
      return el("select", base, ...field.choices.map((one) => el("option", { value: one, selected: one === known }, one)));
    }
    if (field.kind === "flag") return el("input", { ...base, type: "checkbox", checked: value === true });
    if (field.kind === "long") {
      const box = el("textarea", { ...base, rows: 2, spellcheck: "false", required: field.needed });
      box.value = value;
      return box;
    }
    const number = field.kind === "whole" || field.kind === "number";
    const facts = number ? { type: "number", step: field.kind === "whole" ? 1 : "any", min: field.low, max: field.high } : { type: "text" };
    const box = el("input", { ...base, ...facts, required: field.needed || number, spellcheck: "false", autocomplete: "off" });
    box.value = value;
    return box;
  }

  const RARE = ["seed", "draws"];

  function form(view, prefix, label, send) {
    const rows = {};
    const shown = view.fields.map((field) => {
      const id = `${prefix}-${field.name}`;
      const box = control(field, id);
      const text = el("label", { for: id }, ...(field.kind === "flag" ? [box, field.label] : [field.label]));
      const help = field.help ? el("p", { class: "help", id: `${id}-help` }, field.help) : null;
      rows[field.name] = { field, box, row: el("div", { class: field.kind }, text, field.kind === "flag" ? null : box, help) };
      return rows[field.name];
    });
    const common = shown.filter((one) => !RARE.includes(one.field.name)).map((one) => one.row);
    const rare = shown.filter((one) => RARE.includes(one.field.name)).map((one) => one.row);
    const made = el("form", { novalidate: false }, ...common);
    if (rare.length) made.append(el("details", {}, el("summary", {}, "Controls and seed"), el("div", {}, ...rare)));
    made.append(el("div", { class: "actions" }, el("button", { type: "submit", class: "main" }, label)));
    const adjust = () => shown.forEach(({ field, row }) => {
      const [name, values] = field.when;
      row.hidden = Boolean(name) && !values.split(" ").includes(rows[name].box.value);
    });
    made.addEventListener("change", adjust);
    adjust();
    made.read = () => Object.fromEntries(shown.map(({ field, box }) => {
      const value = field.kind === "flag" ? box.checked : ["whole", "number"].includes(field.kind) ? Number(box.value) : box.value;
      if (SHARED.includes(field.name)) kept[field.name] = value;
      return [field.name, value];
    }));
    made.fill = (values) => { Object.entries(values).forEach(([name, value]) => { if (rows[name]) rows[name].box.value = value; }); adjust(); };
    made.addEventListener("submit", (event) => { event.preventDefault(); send(made.read()); });
    return made;
  }

  // Jobs ----------------------------------------------------------------------------------------------------

  class Panel {
    constructor(prefix, result, status, cancel) {
      Object.assign(this, { prefix, result, status, button: cancel, job: null, turn: 0 });
      cancel.addEventListener("click", () => this.cancel());
    }

    say(text, wrong = false) {
      this.status.textContent = text;
      this.status.classList.toggle("wrong", wrong);
    }

    // A tab that is closed can show no answer: what it asked for would only keep the others waiting.
    leave() {
      if (this.job) fetch(`/api/jobs/${this.job}`, { method: "DELETE", headers: { "X-Interp-Token": token }, keepalive: true });
    }

    async cancel() {
      if (!this.job) return;
      try { await api(`/api/jobs/${this.job}`, "DELETE"); } catch (error) { this.say(error.message, true); }
    }

    async run(view, request) {
      const turn = ++this.turn;
      this.result.replaceChildren(); // numbers of the last question must not stand under a new one
      await this.cancel();
      this.say("Sent.");
      try {
        let job = await api("/api/jobs", "POST", { view: view.name, request });
        this.job = job.id;
        this.button.hidden = false;
        for (let pause = 120; ["waiting", "running"].includes(job.state); pause = Math.min(pause * 1.3, 1000)) {
          await wait(pause);
          if (turn !== this.turn) return;
          job = await api(`/api/jobs/${job.id}`);
          this.say(job.state === "waiting" || !job.seconds ? (job.before ? `Waiting: ${job.before} before it.` : "The model is loaded.") : `Running for ${job.seconds.toFixed(0)} s${job.note ? `: ${job.note}` : ""}.`);
        }
        if (turn !== this.turn) return;
        if (job.state === "done") await this.show(view, job, request);
        else this.say(job.state === "stopped" ? `Stopped: ${job.error}. The model is loaded again for the next one.` : job.error, true);
      } catch (error) {
        if (turn === this.turn) this.say(error.message, true);
      } finally {
        if (turn === this.turn) { this.job = null; this.button.hidden = true; }
      }
    }

    async show(view, job, request) {
      const page = new DOMParser().parseFromString(job.answer.html, "text/html");
      const notes = (job.answer.notes || []).map((one) => el("p", { class: "note" }, one));
      this.result.replaceChildren(...notes, ...page.body.childNodes, recipe(job.answer));
      if (job.opens) {
        const { address } = await api(`/api/jobs/${job.id}/page`);
        this.result.prepend(el("p", {}, el("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, "Open the graph, whose nodes open")));
      }
      sideways(this.result);
      job.answer.places.forEach((places, at) => choosable(this.result, at, places, request));
      this.say(`Done in ${job.seconds.toFixed(1)} s.`);
      if (this.prefix === "place") this.result.focus({ preventScroll: true });
    }
  }

  // What is wider than the screen says so.
  function sideways(result) {
    for (const one of result.querySelectorAll(".drawing, .scroll")) {
      if (one.scrollWidth <= one.clientWidth + 4) continue;
      one.before(el("p", { class: "note hint" }, "Wider than there is room: move it sideways."));
      one.setAttribute("tabindex", "0");
    }
  }

  // A picture's marks become buttons; arrow keys move among them.
  function choosable(result, at, places, request) {
    const svg = result.querySelectorAll("figure svg")[at];
    const group = svg && svg.querySelector('[id$="-tip-0"]');
    const marks = group ? [...group.querySelectorAll("path")].filter((one) => !one.closest("defs")) : [];
    if (!places.length || marks.length !== places.length) return;
    svg.setAttribute("role", "group");
    const figure = svg.closest("figure");
    figure.querySelector("figcaption").append(" Choose a cell (or the arrow keys and Enter) to edit the model there.");
    marks.forEach((mark, number) => {
      const title = mark.querySelector("title");
      mark.setAttribute("role", "button");
      mark.setAttribute("tabindex", number ? "-1" : "0");
      mark.setAttribute("aria-label", title ? title.textContent : `token ${places[number].token}`);
      mark.classList.add("mark");
      mark.addEventListener("click", () => edit(places[number], request, marks, mark));
      mark.addEventListener("keydown", (event) => moved(event, marks, mark, () => edit(places[number], request, marks, mark)));
    });
  }

  function moved(event, marks, mark, choose) {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); return; }
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const middle = (one) => { const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; };
    const [x, y] = middle(mark);
    let best = null, least = Infinity;
    for (const other of marks) {
      const [ox, oy] = middle(other);
      const along = (ox - x) * step[0] + (oy - y) * step[1];
      const aside = Math.abs((ox - x) * step[1]) + Math.abs((oy - y) * step[0]);
      if (along > 1 && along + 6 * aside < least) { least = along + 6 * aside; best = other; }
    }
    if (!best) return;
    mark.setAttribute("tabindex", "-1");
    best.setAttribute("tabindex", "0");
    best.focus();
  }

  // Edit a place --------------------------------------------------------------------------------------------

  let views = [], main, second;

  function edit(place, request, marks, mark) {
    const view = views.find((one) => one.name === "edit");
    marks.forEach((one) => one.classList.toggle("chosen", one === mark));
    const prompt = String(request.prompt).split("\n")[0];
    if (request.other) kept.source = String(request.other).split("\n")[0];
    const values = { prompt, token: place.token, site: place.site || kept.site || view.fields.find((one) => one.name === "site").default };
    const made = form(view, "place", "See the next tokens with and without", (asked) => second.run(view, { ...asked, chat: request.chat === true }));
    made.fill(values);
    $("place-form").replaceChildren(made);
    $("place-title").textContent = `Edit ${values.site} at token ${place.token}`;
    $("place-result").replaceChildren();
    second.say("");
    $("place").hidden = false;
    $("place-title").scrollIntoView({ block: "start" });
    $("place-title").focus({ preventScroll: true });
  }

  function ask(view) {
    $("question").textContent = view.question;
    const made = form(view, "main", "Run", (request) => { $("place").hidden = true; main.run(view, request); });
    $("form").replaceChildren(made);
    main.turn += 1;
    main.cancel();
    main.button.hidden = true;
    main.say("");
    $("result").replaceChildren();
    $("place").hidden = true;
  }

  // Runs ----------------------------------------------------------------------------------------------------

  const shown = (value) => (value === null || value === undefined ? "\u2013" : typeof value === "number" ? (Number.isInteger(value) ? value.toLocaleString("en") : Math.abs(value) < 0.0005 && value !== 0 ? value.toExponential(1) : value.toLocaleString("en", { maximumFractionDigits: 3 })) : String(value));
  const interval = (one) => (typeof one.low === "number" && typeof one.high === "number" ? `[${shown(one.low)}, ${shown(one.high)}]` : "");

  function table(caption, columns, rows, className = "") {
    const cell = (one) => (one instanceof Node ? el("td", {}, one) : el("td", typeof one === "number" ? { class: "number" } : {}, shown(one)));
    return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      el("table", { class: className }, el("caption", {}, caption), el("thead", {}, el("tr", {}, ...columns.map((one) => el("th", { scope: "col" }, one)))),
        el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map(cell))))));
  }

  function runsView() {
    $("question").textContent = "Which runs are there, and what did they find?";
    main.turn += 1;
    main.cancel();
    main.button.hidden = true;
    $("place").hidden = true;
    $("result").replaceChildren();
    const chosen = new Set();
    const box = el("input", { type: "search", id: "runs-search", autocomplete: "off", spellcheck: "false" });
    const both = el("button", { type: "button", disabled: true, onclick: () => guarded(() => compareRuns([...chosen])) }, "Compare two runs: tick them below");
    let turn = 0;
    const list = async () => {
      const mine = ++turn;
      const { runs } = await api(`/api/runs?q=${encodeURIComponent(box.value)}`);
      if (mine !== turn) return;
      const rows = runs.map((run) => {
        const tick = el("input", { type: "checkbox", "aria-label": `Choose ${run.name}`, checked: chosen.has(run.id), disabled: run.status !== "finished" });
        tick.addEventListener("change", () => { chosen[tick.checked ? "add" : "delete"](run.id); both.disabled = chosen.size !== 2; both.textContent = ["Compare two runs: tick them below", "Compare two runs: tick one more", "Compare the two ticked runs"][chosen.size] || "Compare two runs: untick some"; });
        const open = el("button", { type: "button", class: "link", onclick: () => guarded(() => openRun(run.id)) }, run.name);
        return [tick, run.status === "finished" ? open : `${run.name} (${run.status})`, run.command, run.about, run.model, run.started.slice(0, 16).replace("T", " "), run.verdict];
      });
      main.say(`${runs.length} ${runs.length === 1 ? "run" : "runs"}.`);
      $("result").replaceChildren(runs.length ? table("Runs, newest first", ["", "run", "command", "about", "model", "started", "what was found"], rows, "runs wide") : el("p", {}, "No run here holds these words. Commands such as `interp probe` leave one in runs/."));
    };
    box.addEventListener("input", () => guarded(list));
    $("form").replaceChildren(el("form", { onsubmit: (event) => event.preventDefault() }, el("div", { class: "long" }, el("label", { for: "runs-search" }, "Search: words in the name, the command, the model or what was found"), box), el("div", { class: "actions" }, both)));
    guarded(list);
  }

  function numbers(found) {
    const rows = Object.entries(found.numbers || {}).filter(([, one]) => !one.hidden);
    return el("dl", { class: "numbers" }, ...rows.map(([name, one]) => el("div", {}, el("dt", {}, one.label || name.replaceAll("-", " ")), el("dd", {}, el("span", { class: "value" }, shown(one.value)), " ", el("span", { class: "interval" }, `${one.unit || ""} ${interval(one)}`.trim())), one.meaning ? el("dd", { class: "meaning" }, one.meaning) : null)));
  }

  function facts(pairs) {
    return el("dl", { class: "facts" }, ...Object.entries(pairs).filter(([, value]) => value !== "").flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  }

  // The ends of an interval stand in one cell, as in a report.
  function joined(columns, rows) {
    const ends = (name) => name.endsWith("low") && columns.includes(`${name.slice(0, -3)}high`);
    const kept = columns.filter((name) => !(name.endsWith("high") && columns.includes(`${name.slice(0, -4)}low`)));
    const cell = (row, name) => (ends(name) ? interval({ low: row[name], high: row[`${name.slice(0, -3)}high`] }) : row[name]);
    return [kept.map((name) => (ends(name) ? `${name.slice(0, -3)} interval`.trim() : name)), rows.map((row) => kept.map((name) => cell(row, name)))];
  }

  async function openRun(id) {
    const run = await api(`/api/runs/${id}`);
    const found = run.found;
    const parts = [el("h2", {}, found.question || run.name), el("p", { class: "verdict" }, found.verdict || "This run keeps no verdict."), numbers(found)];
    if (run.page) {
      const { address } = await api(`/api/runs/${id}/page`);
      parts.push(el("p", {}, el("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, "Open its report")));
    }
    const pictures = run.figures.map((name) => el("img", { class: "picture", alt: `Figure ${name}` }));
    parts.push(...pictures);
    for (const one of Object.values(found.tables || {})) {
      if (!one.rows.length) continue;
      const [columns, most] = joined(Object.keys(one.rows[0]), one.rows.slice(0, 30));
      const left = one.n_rows > most.length ? `${one.n_rows - most.length} more rows are in the run's folder. ` : "";
      parts.push(table(one.title, columns.map((name) => name.replaceAll("_", " ")), most), el("p", { class: "note" }, left + (one.note || "")));
    }
    const warned = [...(found.cautions || []), ...run.warnings];
    if (warned.length) parts.push(el("h2", {}, "How far this goes"), el("ul", {}, ...warned.map((one) => el("li", {}, one))));
    parts.push(el("h2", {}, "Make it again"), el("div", { class: "copy" }, ...code("command", run.facts.command_line)), el("h3", {}, "Settings given"), facts(run.settings), el("h3", {}, "The model"), facts(run.model_facts));
    $("result").replaceChildren(el("p", {}, el("button", { type: "button", onclick: runsView }, "Back to all runs")), ...parts);
    $("result").focus({ preventScroll: true });
    main.say(run.name);
    for (const [at, picture] of pictures.entries()) {
      await draw(picture, id, at);
    }
  }

  async function draw(picture, id, at) {
    const svg = await api(`/api/runs/${id}/figures/${at}`);
    picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg.replaceAll("currentColor", "#1d232b"))}`;
  }

  async function compareRuns([first, second]) {
    const both = await api(`/api/compare/${first}/${second}`);
    const pictures = [];
    const head = (run, at) => {
      const found = run.figures.slice(0, 2).map((name, number) => { const one = el("img", { class: "picture", alt: `Figure ${name} of ${run.name}` }); pictures.push([one, run.id, number]); return one; });
      return el("div", {}, el("h3", {}, `${at ? "Second" : "First"}: ${run.name}`), el("p", {}, run.verdict), ...found);
    };
    const rows = both.numbers.map((one) => [one.name, one.first.value, interval(one.first), one.second.value, interval(one.second), one.difference, one.intervals]);
    const parts = [el("h2", {}, "Two runs side by side"), both.alike ? null : el("p", { class: "alert" }, "These runs asked different questions: numbers of one name may mean different things."), el("div", { class: "beside" }, ...both.runs.map(head))];
    parts.push(both.settings.length ? table("What was asked differently", ["setting", "first", "second"], both.settings.map((one) => [one.name, one.first, one.second])) : el("p", {}, "Their settings are the same."));
    parts.push(rows.length ? table("Numbers", ["number", "first", "interval", "second", "interval", "second less first", "intervals"], rows) : el("p", {}, "They have no number in common."));
    parts.push(el("p", { class: "note" }, both.note));
    if (both.only.length) parts.push(el("p", { class: "note" }, `Only in one of them: ${both.only.join(", ")}.`));
    $("result").replaceChildren(el("p", {}, el("button", { type: "button", onclick: runsView }, "Back to all runs")), ...parts.filter(Boolean));
    $("result").focus({ preventScroll: true });
    sideways($("result"));
    for (const [picture, id, at] of pictures) await draw(picture, id, at);
  }

  async function guarded(what) {
    try { alertOf(""); await what(); } catch (error) { alertOf(error.message); }
  }

  // Start ---------------------------------------------------------------------------------------------------

  function choose(name) {
    for (const button of $("views").children) {
      if (button.dataset.name === name) button.setAttribute("aria-current", "page");
      else button.removeAttribute("aria-current");
    }
    history.replaceState(null, "", `#view=${name}`);
    alertOf("");
    if (name === "runs") runsView();
    else ask(views.find((one) => one.name === name));
  }

  async function begin() {
    if (!token) { alertOf("Open the address that interp serve printed: it holds the secret of this server."); return; }
    const about = await api("/api/about");
    views = about.views;
    const names = [...views.map((one) => [one.name, one.title]), ["runs", "Runs"]];
    $("views").replaceChildren(...names.map(([name, title]) => { const made = el("button", { type: "button", onclick: () => choose(name) }, title); made.dataset.name = name; return made; }));
    if (about.model) {
      $("model").textContent = about.model.about;
      if (about.model.warnings.length) alertOf(about.model.warnings.join(" "));
    }
    const asked = new URLSearchParams(location.hash.slice(1)).get("view");
    choose(names.some(([name]) => name === asked) ? asked : names[0][0]);
    if (about.model && about.model.warnings.length) alertOf(about.model.warnings.join(" "));
  }

  main = new Panel("main", $("result"), $("status"), $("cancel"));
  second = new Panel("place", $("place-result"), $("place-status"), $("place-cancel"));
  addEventListener("pagehide", () => { main.leave(); second.leave(); });
  guarded(begin);
})();
