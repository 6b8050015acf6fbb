"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const main = find("cards"), none = find("none"), count = find("count");
  const controls = ["search", "emotion", "correctness", "group", "sort"].map(find).filter(Boolean);
  const cards = [...main.querySelectorAll(".card")].map((element, place) => ({
    element,
    place,
    name: element.querySelector("h2").title,
    text: (element.querySelector(".body").textContent + " " + element.querySelector("h2").title).toLowerCase(),
    scores: element.dataset.scores.split(" ").map(Number),
  }));
  const value = (id) => find(id)?.value ?? "";
  const shown = () => cards.filter((card) => !card.element.hidden);
  let order = cards;

  function compare(sort) {
    if (!sort) return (a, b) => a.place - b.place;
    if (sort === "name") return (a, b) => a.name.localeCompare(b.name) || a.place - b.place;
    const [column, sign] = sort.split(" ").map(Number);
    return (a, b) => sign * (a.scores[column] - b.scores[column]) || a.place - b.place;
  }

  function update() {
    const words = value("search").toLowerCase().split(/\s+/).filter(Boolean);
    for (const card of cards) {
      const fits = ["emotion", "correctness", "group"].every((id) => !value(id) || card.element.dataset[id] === value(id));
      card.element.hidden = !(fits && words.every((word) => card.text.includes(word)));
    }
    const sorted = [...cards].sort(compare(value("sort")));
    if (sorted.some((card, index) => card !== order[index])) main.prepend(...sorted.map((card) => card.element));
    order = sorted;
    const number = shown().length;
    count.textContent = number === cards.length ? `${number} images` : `${number} of ${cards.length} images`;
    none.hidden = number > 0;
  }

  function clear() {
    for (const control of controls) control.value = "";
    update();
  }

  function step(elements, current, by) {
    const index = elements.indexOf(current);
    const next = elements[index < 0 ? (by > 0 ? 0 : elements.length - 1) : index + by];
    next?.focus();
    next?.scrollIntoView({ block: "nearest" });
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const active = document.activeElement, card = active.closest(".card");
    if (event.key === "Escape") return clear();
    if (active.matches("input, select, textarea")) return;
    if (event.key === "/") find("search").focus();
    else if (event.key === "j" || event.key === "k") {
      step(order.filter((one) => !one.element.hidden).map((one) => one.element), card, event.key === "j" ? 1 : -1);
    } else if (card && event.key === "r") {
      const references = card.querySelector(".references");
      references.open = !references.open;
    } else if (card && (event.key === "ArrowRight" || event.key === "ArrowLeft")) {
      step([...card.querySelectorAll(".w[data-vad]")], active, event.key === "ArrowRight" ? 1 : -1);
    } else return;
    event.preventDefault();
  });
  for (const control of controls) control.addEventListener("input", update);
  find("clear").addEventListener("click", clear);
  update();
})();
