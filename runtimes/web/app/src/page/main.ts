/** The page of `slmx web`: the models run in the browser. */
import { watchOffline } from "./offline.ts";
import { Page } from "./page.ts";
import { millions } from "./texts.ts";
import { WorkerClient } from "./worker_client.ts";

new Page({
  open: (handlers) => new WorkerClient(handlers),
  tagline: ({ parameters }) => `A language model of ${millions(parameters)} parameters runs in this page. What you type stays here.`,
  // Before the model is there, the service worker would take time from it.
  settled: (figures, notices) => watchOffline((words) => figures.showOffline(words), notices),
});
