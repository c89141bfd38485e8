import java.io.IOException;
import java.io.UncheckedIOException;

import org.codelibs.opensearch.runner.OpenSearchRunner;

/** One OpenSearch node on loopback: `Server FOLDER PORT`. SIGTERM closes it as a service would be closed. */
public final class Server {
    /** HTTP, and what a single node without scripts and ingest pipelines needs. */
    private static final String MODULES = String.join(",",
            "org.opensearch.transport.Netty4Plugin",
            "org.opensearch.analysis.common.CommonAnalysisPlugin",
            "org.opensearch.index.mapper.MapperExtrasPlugin",
            "org.opensearch.index.reindex.ReindexPlugin");

    public static void main(String[] given) throws InterruptedException {
        OpenSearchRunner runner = new OpenSearchRunner();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> close(runner)));
        runner.onBuild((number, settings) -> {
            settings.put("http.port", given[1]);
            settings.put("transport.port", "0");
            settings.put("network.host", "127.0.0.1");
            settings.put("discovery.type", "single-node");
            // A full disk of the machine is no matter of these tests.
            settings.put("cluster.routing.allocation.disk.threshold_enabled", false);
        });
        runner.build(OpenSearchRunner.newConfigs()
                .basePath(given[0]).numOfNode(1).moduleTypes(MODULES).printOnFailure());
        Thread.currentThread().join();
    }

    private static void close(OpenSearchRunner runner) {
        try {
            runner.close();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
