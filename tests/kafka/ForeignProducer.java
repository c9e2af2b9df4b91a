import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.StringSerializer;

/** Runs a script of `tests/kafka/foreign.py` from its input; prints partition and offset of each record. */
public class ForeignProducer {
    public static void main(String[] arguments) throws Exception {
        KafkaProducer<String, String> producer = null;
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] step = line.split("\t");
            switch (step[0]) {
                case "open" -> {
                    close(producer);
                    Map<String, Object> config = new HashMap<>();
                    config.put("bootstrap.servers", arguments[0]);
                    config.put("compression.type", step[1]);
                    config.put("linger.ms", 20);
                    if (!step[2].equals("-")) config.put("transactional.id", step[2]);
                    producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
                    if (!step[2].equals("-")) producer.initTransactions();
                }
                case "begin" -> producer.beginTransaction();
                case "commit" -> producer.commitTransaction();
                case "abort" -> {
                    producer.flush();  // else nothing of the transaction reaches the topic
                    producer.abortTransaction();
                }
                case "record" -> {
                    ProducerRecord<String, String> record = new ProducerRecord<>(step[1], step[2], step[3]);
                    for (int i = 4; i < step.length; i++) {
                        String[] header = step[i].split("=", 2);
                        record.headers().add(header[0], header[1].getBytes(StandardCharsets.UTF_8));
                    }
                    sent.add(producer.send(record));
                }
                default -> throw new IllegalArgumentException(line);
            }
        }
        close(producer);
        for (Future<RecordMetadata> future : sent) {
            System.out.println(future.get().partition() + " " + future.get().offset());
        }
    }

    private static void close(KafkaProducer<?, ?> producer) {
        if (producer != null) producer.close();  // sends what is left
    }
}
