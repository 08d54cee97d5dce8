/** The page of `slmx serve`: the models run on the server that sent it. */
import { element } from "../page/dom.ts";
import { Page } from "../page/page.ts";
import { millions } from "../page/texts.ts";
import { Api } from "./api.ts";
import { KeyForm } from "./key_form.ts";
import { ServerClient } from "./server_client.ts";

const form = new KeyForm(element("loading", HTMLElement), element("prompt", HTMLTextAreaElement));
const api = new Api(new URL("./", document.baseURI), form);
new Page({
  open: (handlers) => new ServerClient(handlers, api),
  tagline: ({ parameters }) => `A language model of ${millions(parameters)} parameters runs on this server. What you type is sent to it.`,
  settled: () => undefined,
});
