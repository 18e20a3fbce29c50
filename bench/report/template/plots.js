"use strict";
// The plots of the chosen group, each drawn when it comes into view.
(async () => {
  const boards = JSON.parse(document.getElementById("boards").textContent);

  const unpack = async (id) => {
    const text = atob(document.getElementById(id).textContent);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };

  const colours = (figure) => {
    const text = getComputedStyle(document.body).color;
    const line = getComputedStyle(figure).borderTopColor;
    const page = getComputedStyle(document.body).backgroundColor;
    const axis = (name) => ({ [`${name}.gridcolor`]: line, [`${name}.linecolor`]: line, [`${name}.zerolinecolor`]: line });
    return {
      "font.color": text, "font.family": getComputedStyle(document.body).fontFamily, "font.size": 13,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", "hoverlabel.bgcolor": page,
      "hoverlabel.font.color": text, "modebar.color": text, "modebar.bgcolor": "rgba(0,0,0,0)",
      ...axis("xaxis"), ...axis("yaxis"),
    };
  };
  const touch = matchMedia("(pointer: coarse)").matches;
  const config = {
    responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    showSendToCloud: false, plotlyServerURL: "", // a button that sends the figures away is there otherwise
    displayModeBar: touch ? false : "hover",
  };
  const dragmode = touch ? false : "zoom"; // a finger scrolls the page over a plot in place of zooming into it

  const draw = async (figure) => {
    if (figure.drawn) return figure.drawn;
    const { data, layout } = figure.panel;
    const plot = figure.querySelector(".plot");
    figure.drawn = Plotly.newPlot(plot, data, { ...structuredClone(layout), dragmode }, config)
      .then(() => Plotly.relayout(plot, colours(figure)));
    return figure.drawn;
  };
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
  }, { rootMargin: "300px" });

  const make = (panel) => {
    const figure = document.createElement("figure");
    figure.panel = panel;
    figure.dataset.panel = panel.name;
    const title = document.createElement("h4");
    title.textContent = panel.title;
    const plot = document.createElement("div");
    plot.className = "plot";
    plot.style.minHeight = `${panel.layout.height}px`;
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", `${panel.title}. ${panel.caption} The table below has its figures.`);
    const caption = document.createElement("figcaption");
    caption.textContent = `${panel.caption} `;
    const table = document.getElementById(`table-${panel.table.toLowerCase().replace(/[^a-z0-9]+/g, "-")}`);
    if (table) {
      const link = document.createElement("a");
      link.href = `#${table.id}`;
      link.textContent = "The figures as a table.";
      link.addEventListener("click", () => { table.closest("details").open = true; });
      caption.append(link);
    }
    figure.append(title, plot, caption);
    return figure;
  };

  const show = (board, group) => {
    const place = board.querySelector(".panels");
    for (const figure of place.children) {
      seen.unobserve(figure);
      if (figure.drawn) Plotly.purge(figure.querySelector(".plot"));
    }
    place.replaceChildren(...group.panels.map(make));
    for (const figure of place.children) seen.observe(figure);
  };

  try {
    const script = document.createElement("script");
    script.textContent = await unpack("plotly");
    document.head.append(script);
  } catch (error) {
    const message = document.getElementById("no-plots");
    message.textContent = `The plots can't be drawn in this browser (${error.message}); the tables have their figures.`;
    message.hidden = false;
    return;
  }
  for (const board of document.querySelectorAll(".board")) {
    const groups = boards[board.dataset.board];
    const select = board.querySelector("select");
    select?.addEventListener("change", () => show(board, groups[select.value]));
    show(board, groups[select?.value ?? 0]); // a reloaded page may remember what was chosen
  }
  const figures = () => document.querySelectorAll(".panels figure");
  document.addEventListener("colours", () => {
    for (const figure of figures()) {
      if (figure.drawn) figure.drawn.then(() => Plotly.relayout(figure.querySelector(".plot"), colours(figure)));
    }
  });
  addEventListener("beforeprint", () => { for (const figure of figures()) draw(figure); });
  document.documentElement.dataset.plots = "ready";
})();
