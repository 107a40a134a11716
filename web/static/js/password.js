// The two new passwords are compared before anything is sent: what was typed stays, and the field that is wrong says so.
const form = document.getElementById("choose");
const [chosen, again] = ["new", "again"].map((id) => document.getElementById(id));
const error = document.getElementById("again-error");

function tell(wrong) {
  error.hidden = !wrong;
  again.closest(".field").classList.toggle("wrong", wrong);
  if (wrong) again.setAttribute("aria-invalid", "true");
  else again.removeAttribute("aria-invalid");
}

form.addEventListener("submit", (event) => {
  const differ = chosen.value !== again.value;
  tell(differ);
  if (!differ) return;
  event.preventDefault();
  again.focus();
  again.select();
});
form.addEventListener("input", (event) => {
  if (event.target === chosen || event.target === again) tell(false);
});
