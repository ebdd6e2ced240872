// The server's key, where it has one: asked for, kept in this tab, forgotten.

import { hasKey, keepKey, onKeyNeeded } from "./api.js";
import { find } from "./dom.js";

export function setUpKey() {
  onKeyNeeded(ask);
  find("#forget").hidden = !hasKey();
  find("#forget").addEventListener("click", () => {
    keepKey(null);
    location.reload();
  });
}

/** Resolves when a key is given. */
function ask(message) {
  const dialog = find("#key-dialog");
  find("#key-message").textContent = message;
  find("#key").value = "";
  dialog.showModal();
  return new Promise((resolve, reject) => {
    dialog.onclose = () => {
      const key = find("#key").value.trim();
      find("#key").value = "";
      if (!key) {
        reject(new Error("The server answers nothing without its key."));
        return;
      }
      keepKey(key);
      find("#forget").hidden = false;
      resolve();
    };
  });
}
