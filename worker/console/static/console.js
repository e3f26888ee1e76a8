// Everything here is a convenience: without it pages are read by reloading, and forms work as they are.
"use strict";

// Replaces what is different, and nothing else: what somebody reads, selected or has heard already stays as it is.
function renew(part, html) {
  const fresh = document.createElement("template");
  fresh.innerHTML = html; // escaped by the server; the page's policy allows no script in it
  const [before, after] = [[...part.children], [...fresh.content.children]];
  if (before.length !== after.length) return part.replaceChildren(...after);
  after.forEach((now, number) => {
    const old = before[number];
    if (old.outerHTML === now.outerHTML) return;
    if (old.getAttribute("role") !== "status") return old.replaceWith(now);
    // The element itself stays: screen readers read out what changes inside.
    old.className = now.className;
    if (old.innerHTML !== now.innerHTML) old.innerHTML = now.innerHTML;
  });
}

// Parts that are alive: the server sends them again when they change, by the ids of their elements.
function watch(whole) {
  const source = new EventSource(whole.dataset.live);
  source.onmessage = (event) => {
    for (const [id, html] of Object.entries(JSON.parse(event.data))) {
      const part = document.getElementById(id);
      if (!part) continue;
      const open = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      renew(part, html);
      if (open) part.querySelector(`a[href="${CSS.escape(open)}"]`)?.focus();
    }
    whole.classList.remove("not-live");
  };
  source.addEventListener("over", () => {
    source.close();
    location.reload();
  });
  source.onerror = () => whole.classList.add("not-live");
  return source;
}

// Only as long as somebody can see them: a browser opens six connections to one address, and a seventh tab would wait.
for (const whole of document.querySelectorAll("[data-live]")) {
  let source = null;
  const follow = () => {
    if (document.hidden) source = source?.close() ?? null;
    else source ??= watch(whole);
  };
  document.addEventListener("visibilitychange", follow);
  addEventListener("pagehide", () => source?.close());
  follow();
}

// Relative times grow older.
const units = [["s", 1e6, 120e6], ["min", 60e6, 7200e6], ["h", 3600e6, 172800e6], ["d", 86400e6, Infinity]];
function ago(micros) {
  const distance = Date.now() * 1000 - micros;
  const [unit, size] = units.find(([, , above]) => Math.abs(distance) < above);
  const span = `${Math.floor(Math.abs(distance) / size)} ${unit}`;
  return Math.abs(distance) < 1e6 ? "now" : distance > 0 ? `${span} ago` : `in ${span}`;
}
setInterval(() => {
  for (const time of document.querySelectorAll("time[data-micros]")) time.textContent = ago(Number(time.dataset.micros));
}, 10000);

// What is typed is checked by the rules of the worker.
for (const form of document.querySelectorAll("form[data-check]")) {
  const body = form.elements.namedItem("body");
  const told = document.getElementById("check");
  let timer = 0;
  let latest = 0;
  body.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const number = ++latest;
      const answer = await fetch(form.dataset.check, {
        method: "POST",
        headers: { "Accept": "application/json", "X-Form-Token": form.elements.namedItem("form_token").value },
        body: new URLSearchParams(new FormData(form)),
      }).then((response) => response.json()).catch(() => ({ problem: "the console does not answer" }));
      if (number !== latest) return;
      const problem = answer.ok ? "" : answer.problem || answer.error;
      told.textContent = problem || `This is an event. A replay would: ${answer.would}${answer.detail ? ` (${answer.detail})` : ""}`;
      told.className = `check-result ${problem ? "bad" : "good"}`;
      if (problem) body.setAttribute("aria-invalid", "true");
      else body.removeAttribute("aria-invalid");
    }, 250);
  });
}

// "/" leads to the search, wherever nothing is typed.
addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select");
  const search = document.getElementById("search");
  if (event.key === "/" && !typing && search && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.focus();
  }
});

// A form is sent once.
for (const form of document.querySelectorAll("form[method=post]")) {
  form.addEventListener("submit", () => {
    for (const button of form.querySelectorAll("button")) button.setAttribute("aria-disabled", "true");
    setTimeout(() => form.querySelectorAll("button").forEach((button) => (button.disabled = true)));
  });
}
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
