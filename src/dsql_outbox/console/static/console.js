// The pages work without this file. With it they are live, and commands can be copied.
"use strict";

// Replace the parts of this page that are also in `html`, but not where the reader is at work.
const swap = (html, selector) => {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  for (const part of fresh.querySelectorAll(selector)) {
    const here = document.getElementById(part.id);
    if (!here || here.contains(document.activeElement)) continue;
    const selection = document.getSelection();
    if (selection && !selection.isCollapsed && selection.containsNode(here, true)) continue;
    here.innerHTML = part.innerHTML;
    prepare(here);
  }
};

const prepare = (root) => {
  for (const button of root.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        document.getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
};

const live = document.querySelector("[data-stream]");
if (live) {
  const pause = live.querySelector("[data-pause]");
  const lost = live.querySelector("[data-lost]");
  let source = null;
  let waiting = null;
  const tell = (text) => { clearTimeout(waiting); lost.textContent = text; };
  const listen = () => {
    source = new EventSource(live.dataset.stream);
    source.onmessage = (event) => swap(event.data, "[data-live]");
    source.onopen = () => tell("");
    source.onerror = () => { // also when a stream ends and the next one begins a second later
      clearTimeout(waiting);
      waiting = setTimeout(tell, 5000, lost.dataset.lost);
    };
  };
  pause.hidden = false;
  pause.addEventListener("click", () => {
    if (source) { source.close(); source = null; tell(""); } else { listen(); }
    pause.textContent = source ? "Pause" : "Continue";
  });
  listen();
}

prepare(document);
