// Before and after in one frame: <div class="compare"><img><img></div>; the second is uncovered up to a line that one
// drags, or moves by the arrow keys. The two need not have the same size.
import { word } from "./words.js";

/** Makes a .compare work; safe to call again. */
export function compare(frame) {
  if (frame.querySelector("input")) return;
  const slider = document.createElement("input");
  slider.type = "range";
  slider.min = 0;
  slider.max = 100;
  slider.value = 50;
  slider.ariaLabel = word("ui.compare");
  const line = document.createElement("span");
  line.className = "line";
  frame.append(line, slider);
  const move = () => frame.style.setProperty("--at", `${slider.value}%`);
  slider.addEventListener("input", move);
  move();
}

for (const frame of document.querySelectorAll(".compare")) compare(frame);
