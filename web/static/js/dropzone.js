// A place to drop files on: <label class="dropzone"><input type="file">…</label>. Files are sent by XMLHttpRequest,
// which alone tells how far it is.
import { Problem } from "./api.js";
import { ended } from "./session.js";
import { word } from "./words.js";

/** Calls `onFiles` with the files that are dropped on the zone, pasted while it has the focus, or chosen. */
export function dropzone(zone, onFiles) {
  const input = zone.querySelector("input[type=file]");
  const take = (files) => files.length && onFiles(input.multiple ? [...files] : [files[0]]);
  input.addEventListener("change", () => {
    take(input.files);
    input.value = ""; // the same file may be chosen again
  });
  for (const name of ["dragenter", "dragover"]) {
    zone.addEventListener(name, (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) zone.addEventListener(name, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    take(event.dataTransfer.files);
  });
  zone.addEventListener("paste", (event) => take(event.clipboardData.files));
}

/**
 * Sends a form; gives the answer's JSON and headers as { value, header }. `onProgress` gets 0…1, then null while the
 * server works. `signal` aborts it. Throws a Problem.
 */
export function upload(path, form, { onProgress = () => {}, signal, version } = {}) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.setRequestHeader("Accept", "application/json");
    if (version) request.setRequestHeader("If-Match", version);
    request.upload.onprogress = (event) => onProgress(event.lengthComputable ? event.loaded / event.total : 0);
    request.upload.onload = () => onProgress(null);
    request.onerror = () => failed(new Problem({ detail: word("ui.unreachable"), code: "unreachable" }, 0));
    request.onabort = () => failed(new DOMException("", "AbortError"));
    request.onload = async () => {
      let value = null;
      try {
        value = JSON.parse(request.responseText);
      } catch {
        // not JSON: nothing to read
      }
      if (request.status === 401) await ended();
      const headers = { get: (name) => request.getResponseHeader(name) };
      if (request.status >= 400) return failed(new Problem(value ?? {}, request.status, headers));
      done({ value, header: headers.get });
    };
    signal?.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}
