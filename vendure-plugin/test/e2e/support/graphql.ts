/** A client of one of Vendure's APIs, over HTTP, with a session. */
export class GraphqlClient {
    private token = '';

    constructor(private readonly url: string) {}

    // The shapes are Vendure's own; a query that does not fit its schema fails here.
    async query(document: string, variables: Record<string, unknown> = {}): Promise<any> {
        const response = await fetch(this.url, {
            method: 'POST',
            headers: { 'content-type': 'application/json', ...(this.token && { authorization: `Bearer ${this.token}` }) },
            body: JSON.stringify({ query: document, variables }),
        });
        this.token = response.headers.get('vendure-auth-token') ?? this.token;
        const { data, errors } = (await response.json()) as { data: Record<string, unknown>; errors?: unknown[] };
        if (errors) {
            throw new Error(`${firstLine(document)}: ${JSON.stringify(errors)}`);
        }
        return data;
    }

    /** The same for a mutation of one field, whose answer must not be one of Vendure's error results. */
    async mutate(document: string, variables: Record<string, unknown> = {}): Promise<any> {
        const data = (await this.query(document, variables)) as Record<string, Record<string, unknown> | undefined>;
        const [result] = Object.values(data);
        if (result?.errorCode) {
            throw new Error(`${firstLine(document)}: ${JSON.stringify(result)}`);
        }
        return result;
    }
}

function firstLine(document: string): string {
    return document.trim().split('\n')[0] as string;
}
