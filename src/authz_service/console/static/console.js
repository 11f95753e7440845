// Makes the pages quicker to use. Everything here can be done without it.
"use strict";
(() => {
  document.documentElement.classList.add("js-on");
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone && !document.cookie.includes("authz-zone=")) {
    document.cookie = `authz-zone=${zone}; path=/console; max-age=31536000; SameSite=Strict; Secure`;
    sayTimes(document);
  }

  // Once, on the first page: from the next one on the server says the reader's own times.
  function sayTimes(root) {
    const two = (number) => String(number).padStart(2, "0");
    for (const time of root.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      const day = `${at.getDate()} ${at.toLocaleString("en-GB", { month: "short" }).slice(0, 3)} ${at.getFullYear()}`;
      time.textContent = time.className === "day" ? day : `${day}, ${two(at.getHours())}:${two(at.getMinutes())}`;
      time.title = at.toString();
    }
  }

  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const from = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(from.textContent.trim());
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(from);
        button.textContent = "Press Ctrl+C";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2500);
    });
  }

  for (const picker of document.querySelectorAll("[data-picks]")) {
    picker.addEventListener("input", () => {
      const radio = picker.form.querySelector(`input[type=radio][value="${picker.dataset.picks}"]`);
      if (radio) radio.checked = true;
    });
  }

  const maker = document.getElementById("maker");
  if (!maker) return;
  let asked = 0;

  // Send the form as a button would, and take one part of the answer.
  async function ask(go) {
    const mine = ++asked;
    const body = new URLSearchParams(new FormData(document.getElementById("maker")));
    body.set("go", go);
    const answer = await fetch(location.pathname, { method: "POST", body, credentials: "same-origin" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    return mine === asked && page.getElementById("maker") ? page : null;
  }

  function later(milliseconds, work) {
    let timer;
    return () => { clearTimeout(timer); timer = setTimeout(work, milliseconds); };
  }

  // What may it do: the summary follows the boxes, the search hides what does not fit.
  const matrix = document.getElementById("matrix");
  if (matrix) {
    const summary = document.getElementById("summary");
    const counted = document.getElementById("counted");
    const say = later(150, async () => {
      const page = await ask("preview");
      if (page) summary.replaceChildren(...page.getElementById("summary").childNodes);
    });
    matrix.addEventListener("change", (event) => {
      const category = event.target.closest(".category");
      const count = category.querySelectorAll("input:checked").length;
      let pill = category.querySelector("summary .pill");
      if (!pill) { pill = document.createElement("span"); pill.className = "pill"; category.querySelector("summary").append(" ", pill); }
      pill.textContent = `${count} chosen`;
      pill.hidden = count === 0;
      say();
    });
    const field = maker.querySelector("[data-filter]");
    const whole = field.value === "";
    field.addEventListener("input", later(60, () => {
      if (!whole) return; // the server left rows out: ask it again
      const words = field.value.toLowerCase().replaceAll(/[:_]/g, " ").split(/\s+/).filter(Boolean);
      let found = 0;
      for (const category of matrix.querySelectorAll(".category")) {
        const own = category.querySelector("summary").firstChild.textContent.toLowerCase();
        let shown = 0;
        for (const row of category.querySelectorAll("tbody tr")) {
          const names = [...row.querySelectorAll("input")].map((box) => box.value).join(" ");
          const text = `${own} ${row.textContent} ${names}`.toLowerCase().replaceAll(/[:_]/g, " ");
          row.hidden = !words.every((word) => text.includes(word));
          if (!row.hidden) { shown += 1; found += row.querySelectorAll("input").length; }
        }
        category.hidden = shown === 0;
        category.open = words.length > 0 ? shown > 0 : category.querySelector("input:checked") !== null;
      }
      counted.textContent = `${found} permissions${words.length ? " found" : ""}.`;
    }));
    field.addEventListener("keydown", (event) => { if (event.key === "Enter" && whole) event.preventDefault(); });
    return;
  }

  // Beforehand: what would change, and who would have to approve it, follows what is chosen.
  const beforehand = document.getElementById("beforehand");
  if (beforehand && maker.dataset.look) {
    const look = later(300, async () => {
      const page = await ask(maker.dataset.look);
      const found = page && page.getElementById("beforehand");
      if (found) beforehand.replaceChildren(...found.childNodes);
    });
    maker.addEventListener("change", look);
  }

  // Where: searching, adding and removing without a new page; the cursor stays where it was.
  if (maker.dataset.swap) {
    async function swap(go, focus) {
      const page = await ask(go);
      if (!page) return;
      const now = document.getElementById("maker");
      const old = document.querySelector("main > .alert");
      const alert = page.querySelector("main > .alert");
      if (old) old.remove();
      if (alert) now.before(alert);
      const typed = now.querySelector("[data-live]");
      const at = typed && document.activeElement === typed ? typed.selectionStart : null;
      now.replaceWith(page.getElementById("maker"));
      const next = document.querySelector("#maker [data-live]");
      if (next && at !== null) { next.focus(); next.setSelectionRange(at, at); }
      else if (focus) (document.querySelector(focus) || next || document.getElementById("content")).focus();
    }
    const live = later(220, () => swap("find"));
    document.addEventListener("input", (event) => { if (event.target.matches("#maker [data-live]")) live(); });
    document.addEventListener("change", (event) => {
      const go = event.target.dataset.go;
      if (go && event.target.closest("#maker")) swap(go, event.target.type === "radio" ? "#maker input[type=radio]:checked" : "#maker select");
    });
    document.addEventListener("submit", (event) => {
      const go = event.submitter?.value ?? "";
      if (event.target.id !== "maker" || !/^(find$|add:|remove:|drop:)/.test(go)) return;
      event.preventDefault();
      swap(go, "#maker [data-live]");
    });
  }
})();
