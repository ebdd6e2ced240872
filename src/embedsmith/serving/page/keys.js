// Tabs, and keys that work anywhere on the page.

import { find } from "./dom.js";

/** Arrow keys, Home and End go from tab to tab, as in other programs; the chosen one is a stop of the Tab key. */
export function setUpTabs(choose) {
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  tabs.forEach((tab, place) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: -1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const target = tabs.at(to % tabs.length);
      target.focus();
      choose(target);
    });
  });
}

/** Single keys do something unless somebody is typing, or has switched them off; Ctrl or Cmd and Enter always do. */
export function setUpKeys(actions, compute) {
  addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      compute();
      return;
    }
    const isTyping = event.target.matches("textarea, select, input:not([type=checkbox], [type=radio], [type=file])");
    if (isTyping && event.key === "Escape" && event.target.id === "texts") find("#result").focus();
    const isAlone = !(event.ctrlKey || event.metaKey || event.altKey);
    const action = actions[event.key.toLowerCase()];
    if (!action || !isAlone || isTyping || !find("#single-keys").checked || document.querySelector("dialog[open]"))
      return;
    event.preventDefault();
    action();
  });
}
