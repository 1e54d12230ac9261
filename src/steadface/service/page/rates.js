// Rates in words, and how they are chosen.

import { model } from "./api.js";
import { el, field, select } from "./dom.js";

const whole = new Intl.NumberFormat("en");

/** "1 in 1,000" */
export const oneIn = (rate) => (rate >= 0.5 ? `${Math.round(100 * rate)} in 100` : `1 in ${whole.format(Math.round(1 / rate))}`);

/** "once in 1,000" */
export const onceIn = (rate) => (rate >= 0.5 ? `${Math.round(100 * rate)} times in 100` : `once in ${whole.format(Math.round(1 / rate))}`);

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}\u00a0%`;

/** The chance that a stranger is taken for any of `people` at the `fmr` of one comparison. */
export const fpirOf = (fmr, people) => -Math.expm1(people * Math.log1p(-fmr));

/** A control for the false match rate, of those that were measured. */
export async function rateField(label = "How often may strangers pass for one another?", unit = " comparisons") {
  const { thresholds } = await model();
  if (thresholds === null) {
    const note = "This model is not calibrated: nothing says which similarity means what. Run “steadface calibrate”.";
    return { element: el("p", { class: "notice" }, note), value: null };
  }
  const rates = thresholds.points.map((point) => point.fmr);
  const usual = rates.reduce((best, one) => (Math.abs(Math.log(one / 1e-3)) < Math.abs(Math.log(best / 1e-3)) ? one : best));
  const control = select(rates.map((rate) => [String(rate), oneIn(rate) + unit]), String(usual));
  return {
    element: field(label, control),
    control,
    get value() { return Number(control.value); },
    set value(rate) { control.value = String(rate); },
  };
}
