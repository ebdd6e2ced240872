"use strict";
// Before the first paint: the theme that was chosen, else the system's. A classic script, as modules come after it.
{
  const NEXT = { auto: "light", light: "dark", dark: "auto" };
  const read = () => {
    try {
      return localStorage.getItem("theme") in NEXT ? localStorage.getItem("theme") : "auto";
    } catch {
      return "auto"; // storage is switched off
    }
  };
  let theme = read();
  const show = () => {
    document.documentElement.dataset.theme = theme;
    const name = document.querySelector("#theme span");
    if (name) name.textContent = theme;
  };
  show();
  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme").addEventListener("click", () => {
      theme = NEXT[theme];
      try {
        localStorage.setItem("theme", theme);
      } catch {
        // then it holds until the page is left
      }
      show();
    });
  });
}
