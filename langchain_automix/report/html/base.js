"use strict";
// All that the scripts show is made with these: text only ever becomes a text node.
const report = JSON.parse(document.getElementById("report-data").textContent);
const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function make(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function draw(name, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

const threeDigits = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const known = (value) => value !== null && value !== undefined;
const whole = (value) => value.toLocaleString("en");
const minus = (shown) => shown.replace("-", "\u2212");
const costNumber = (value) => (known(value) ? threeDigits.format(value) : "unknown");
const unit = report.currency ? ` ${report.currency}` : "";
const costText = (value) => (known(value) ? costNumber(value) + unit : "unknown");
const qualityText = (value) => (known(value) ? value.toFixed(3) : "unknown");
const shareText = (value) => (known(value) ? `${(100 * value).toFixed(1)}%` : "unknown");
const signed = (value) => (Math.abs(value) < 0.0005 ? "0.000" : (value < 0 ? "" : "+") + minus(value.toFixed(3)));
